"""Marks of tests that need an optional package."""

from importlib.util import find_spec

import pytest

signed = pytest.mark.skipif(not find_spec("cryptography"), reason="cryptography is not installed (edgeaid[bundle])")
