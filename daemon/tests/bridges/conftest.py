"""Fixtures of tests of bridges."""

from tests.support.streams import frames_of_digits

__all__ = ["frames_of_digits"]
