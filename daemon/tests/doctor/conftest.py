"""A made-up machine."""

from ..devices.conftest import tree

__all__ = ["tree"]
