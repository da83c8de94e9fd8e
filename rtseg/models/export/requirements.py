"""Check for the optional packages that a build needs, without importing them."""

from __future__ import annotations

import importlib.util

from rtseg.core.errors import BackendError


def require(*modules: str) -> None:
    """Raise BackendError with an install command if a module, whose package has the same name, is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise BackendError(f"building needs {' and '.join(missing)}: pip install {' '.join(missing)}")
