"""Fixtures of the live tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from web_client import Page


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.sink.close()


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Event for servers that stay silent. It is set after the test, so that their threads end."""
    never = threading.Event()
    yield never
    never.set()
