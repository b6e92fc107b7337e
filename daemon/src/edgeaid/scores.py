"""What is said of a picture's classes, by the daemon and to its clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class and its score."""

    #: Class number, counted from 0.
    index: int
    #: Its name; the number as text when the model has no labels.
    label: str
    #: 0 to 1 where the model says probabilities.
    score: float


@dataclass(frozen=True, slots=True)
class Area:
    """A class of a segmentation."""

    index: int
    label: str
    #: Its part of the picture, 0 to 1.
    fraction: float
