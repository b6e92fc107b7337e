"""Where a model's input lies in the picture it was made from. Pure arithmetic, no numpy: it crosses process borders."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """The part of the picture that the input tensor covers, in units of the picture: (0, 0) to (1, 1) is all of it.

    A letterboxed picture is covered with room to spare (left or top below 0), a cropped one is not covered whole.
    """

    #: Pixels of the picture, upright (after its EXIF orientation).
    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    def to_json(self) -> dict[str, float]:
        """Its fields by name."""
        return {
            "width": self.width,
            "height": self.height,
            "left": self.left,
            "top": self.top,
            "right": self.right,
            "bottom": self.bottom,
        }

    def x(self, value: float) -> float:
        """From the tensor's horizontal axis, 0 to 1, to the picture's, 0 to 1, cut off at the picture's edge."""
        return min(1.0, max(0.0, self.left + value * (self.right - self.left)))

    def y(self, value: float) -> float:
        """The same for the vertical axis."""
        return min(1.0, max(0.0, self.top + value * (self.bottom - self.top)))
