"""What the tests of this folder need: libraries that on CI stand in an environment of their own."""

import os
from importlib.util import find_spec

import pytest


def need(package: str) -> None:
    """Skip where a library is not installed; on CI, fail."""
    if find_spec(package) is None:
        assert "CI" not in os.environ, f"CI installs {package}: see the Makefile"
        pytest.skip(f"{package} is not installed: pip install {package}")
