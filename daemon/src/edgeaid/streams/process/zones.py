"""Where objects are: inside which zones, and on which side of which lines. Pure numpy.

An object is where it stands: the middle of its box's lower edge, which for a camera that looks down is its place on the
ground.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..table import Point, Polygon

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]


def foot(box: Box) -> Point:
    """Where an object stands."""
    return (box[0] + box[2]) / 2, box[3]


class Zones:
    """Named polygons; all of them are asked at once."""

    def __init__(self, zones: Mapping[str, Polygon]) -> None:
        self.names = tuple(zones)
        starts = [np.array(polygon) for polygon in zones.values()]
        ends = [np.roll(polygon, -1, axis=0) for polygon in starts]
        self._first = np.cumsum([0, *(len(p) for p in starts)])[:-1]
        self._start: Floats = np.concatenate(starts) if starts else np.zeros((0, 2))
        self._end: Floats = np.concatenate(ends) if ends else np.zeros((0, 2))

    def around(self, point: Point) -> frozenset[str]:
        """Names of the zones that the point is in: an edge to its right is crossed an odd number of times."""
        if not self.names:
            return frozenset()
        x, y = point
        x0, y0, x1, y1 = self._start[:, 0], self._start[:, 1], self._end[:, 0], self._end[:, 1]
        straddles = (y0 > y) != (y1 > y)
        rise = np.where(y1 == y0, 1.0, y1 - y0)
        crossed = straddles & (x < x0 + (y - y0) * (x1 - x0) / rise)
        inside = np.add.reduceat(crossed.astype(np.int64), self._first) % 2 == 1
        return frozenset(name for name, within in zip(self.names, inside, strict=True) if within)


def side(line: tuple[Point, Point], point: Point) -> int:
    """1 = right of the line as seen from its first point to its second, -1 = left, 0 = on it."""
    (x0, y0), (x1, y1) = line
    turn = (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)
    return 1 if turn > 1e-9 else -1 if turn < -1e-9 else 0


def crosses(line: tuple[Point, Point], before: Point, after: Point) -> bool:
    """Does the way from `before` to `after` cut the line between its two points?"""
    return (
        side(line, before) != side(line, after) and side((before, after), line[0]) * side((before, after), line[1]) <= 0
    )
