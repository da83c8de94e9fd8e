"""Fixtures of the live tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from web_client import Page


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.sink.close()
