"""Fixtures of tests of streams."""

from tests.support.streams import frames_of_digits, video

__all__ = ["frames_of_digits", "video"]
