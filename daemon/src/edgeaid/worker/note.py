"""The note of a slot: which sequence a request belongs to, and the size and shape of each of its tensors.

Written by the daemon for the inputs before a request, by the worker for the outputs after it. Models whose tensors
always have the same size and that keep no state have no notes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ..errors import InvalidModel
from ..tensors import Turn

#: sequence number u64 (0 = none), flags u64
_HEAD: Final = struct.Struct("<QQ")
#: bytes u64, rank u64, dimensions
MAX_RANK: Final = 8
_TENSOR: Final = struct.Struct(f"<QQ{MAX_RANK}q")
_START: Final = 1
_END: Final = 2


class Form(NamedTuple):
    """What one tensor of a request has."""

    nbytes: int
    shape: tuple[int, ...]


def note_bytes(tensors: int) -> int:
    """Bytes of a note about so many tensors."""
    return _HEAD.size + tensors * _TENSOR.size


def write_turn(note: memoryview, turn: Turn) -> None:
    """Which sequence the request belongs to."""
    _HEAD.pack_into(note, 0, turn.number, _START * turn.start | _END * turn.end)


def read_turn(note: memoryview) -> Turn:
    """What `write_turn` wrote."""
    number, flags = _HEAD.unpack_from(note)
    return Turn(number, bool(flags & _START), bool(flags & _END))


def write_form(note: memoryview, position: int, form: Form) -> None:
    """Size and shape of tensor `position` (inputs first). InvalidModel for more than MAX_RANK dimensions."""
    rank = len(form.shape)
    if rank > MAX_RANK:
        raise InvalidModel(f"a tensor of shape {list(form.shape)} has more than {MAX_RANK} dimensions")
    _TENSOR.pack_into(
        note, _HEAD.size + position * _TENSOR.size, form.nbytes, rank, *form.shape, *(0,) * (MAX_RANK - rank)
    )


def read_form(note: memoryview, position: int) -> Form:
    """What `write_form` wrote."""
    nbytes, rank, *dimensions = _TENSOR.unpack_from(note, _HEAD.size + position * _TENSOR.size)
    return Form(nbytes, tuple(dimensions[:rank]))
