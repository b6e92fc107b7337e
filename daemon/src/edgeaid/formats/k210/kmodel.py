"""K210 models of all three generations: v3 (nncase 0.1), v4 (0.2), v5 (1.x)."""

from __future__ import annotations

from ...errors import InvalidModel, Unsupported
from ..wire.binary import Data, as_view, u32
from . import kmodel_v3, kmodel_v4, kmodel_v5
from .base import Kmodel, Module, Node, Range, check

__all__ = ["Kmodel", "Module", "Node", "Range", "check", "read"]


def read(data: Data) -> Kmodel:
    """Read and check a kmodel.

    Raises InvalidModel for damage, Unsupported for an early v5 file or an unknown version.
    """
    view = as_view(data)
    first, second = u32(view, 0, "kmodel header"), u32(view, 4, "kmodel header")
    if bytes(view[:4]) == b"LDMK":
        if second == 4:
            return kmodel_v4.read(view)
        if second == 5:
            return kmodel_v5.read(view)
        raise Unsupported(f"kmodel version {second} is unknown here; versions 3, 4 and 5 are read")
    if first == 3:
        return kmodel_v3.read(view)
    raise InvalidModel("this is not a kmodel: it starts neither with 'LDMK' nor with version 3")
