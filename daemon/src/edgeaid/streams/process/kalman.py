"""Where boxes will be: a Kalman filter of constant velocity for many boxes at once. Pure numpy.

Each of a box's four numbers (centre x, centre y, width, height) has a filter of its own: with the noise that trackers
use (diagonal, in proportion to the box), the usual eight-dimensional filter falls apart into four of two dimensions, so
that all of it is element-wise arithmetic. Noise as in ByteTrack (arXiv:2110.06864), per step of the frame rate; where
steps are longer than at the 20 to 30 frames per second that it was chosen for, speeds change more from one to the next.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Standard deviations as a part of the box's size.
POSITION: Final = 1 / 20
VELOCITY: Final = 1 / 160


class Boxes:
    """States of n boxes. Positions are in units of the caller's; time is in steps (frames at the usual rate)."""

    def __init__(self) -> None:
        #: [n,4] centre x, centre y, width, height, and the same per step.
        self.place: Floats = np.zeros((0, 4))
        self.speed: Floats = np.zeros((0, 4))
        #: [n,4] variances of place and speed, and their covariance.
        self._var_place: Floats = np.zeros((0, 4))
        self._var_speed: Floats = np.zeros((0, 4))
        self._covariance: Floats = np.zeros((0, 4))
        #: How much more than VELOCITY speeds change in a step.
        self.agility = 1.0

    def __len__(self) -> int:
        return len(self.place)

    def predict(self, steps: float) -> None:
        """Let `steps` pass."""
        scale = _scale(self.place)
        self.place = self.place + self.speed * steps
        self.place[:, 2:] = np.maximum(self.place[:, 2:], 1e-6)
        self._var_place = (
            self._var_place
            + 2 * steps * self._covariance
            + steps * steps * self._var_speed
            + (POSITION * scale) ** 2 * steps
        )
        self._covariance = self._covariance + steps * self._var_speed
        self._var_speed = self._var_speed + (self.agility * VELOCITY * scale) ** 2 * steps

    def update(self, rows: list[int], boxes: Floats, scores: Floats) -> None:
        """Boxes [k,4] (corners) were seen for these rows; a low score is trusted less."""
        if not rows:
            return
        seen = centred(boxes)
        # As in StrongSORT: what the detector is sure of moves the box more.
        trust = np.clip(1.3 - scores, 0.3, 1.0)[:, None]
        noise = (POSITION * _scale(self.place[rows]) * trust) ** 2
        total = self._var_place[rows] + noise
        gain_place = self._var_place[rows] / total
        gain_speed = self._covariance[rows] / total
        difference = seen - self.place[rows]
        self.place[rows] += gain_place * difference
        self.speed[rows] += gain_speed * difference
        self._var_speed[rows] -= gain_speed * self._covariance[rows]
        self._covariance[rows] *= 1 - gain_place
        self._var_place[rows] *= 1 - gain_place

    def add(self, boxes: Floats) -> None:
        """New boxes [k,4] (corners), at rest as far as is known."""
        places = centred(boxes)
        scale = _scale(places)
        self.place = np.concatenate([self.place, places])
        self.speed = np.concatenate([self.speed, np.zeros_like(places)])
        self._var_place = np.concatenate([self._var_place, (2 * POSITION * scale) ** 2])
        self._var_speed = np.concatenate([self._var_speed, (10 * self.agility * VELOCITY * scale) ** 2])
        self._covariance = np.concatenate([self._covariance, np.zeros_like(places)])

    def keep(self, rows: list[int]) -> None:
        """Forget all others."""
        for name in ("place", "speed", "_var_place", "_var_speed", "_covariance"):
            setattr(self, name, getattr(self, name)[rows])

    def corners(self) -> Floats:
        """[n,4] xmin, ymin, xmax, ymax."""
        half = self.place[:, 2:] / 2
        return np.concatenate([self.place[:, :2] - half, self.place[:, :2] + half], axis=1)


def centred(boxes: Floats) -> Floats:
    """[n,4] corners to centre and size."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, size], axis=1)


def _scale(places: Floats) -> Floats:
    """[n,4]: what the noise of each number is in proportion to."""
    size = np.maximum(places[:, 2:], 1e-6)
    return np.concatenate([size, size], axis=1)
