"""What has to be installed before a model can be built. Imports nothing of it."""

from __future__ import annotations

import importlib.util

from rtseg.core.errors import BackendError


def require(*modules: str) -> None:
    """Checks that modules are there; their names are those of the packages too.

    Raises:
        BackendError: it names those that are missing and how to install them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise BackendError(f"building needs {' and '.join(missing)}: pip install {' '.join(missing)}")
