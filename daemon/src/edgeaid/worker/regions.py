"""Slots: shared memory in which tensors lie while a request is under way.

One sealed memfd per loaded model version, mapped by the daemon, by each worker that serves the model and by the media
worker, so that a request can move to another device without its tensors moving. A slot holds all inputs, then all
outputs, each aligned to ALIGN bytes; slots start on page boundaries. Models whose tensors vary in size, or that keep
state, have a note at the end of each slot, which says what this request has (see `note`). Free slots are handed out
last-in first-out: only as many pages are touched as requests were ever in flight together.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Final

from ..tensors import TensorSpec
from .note import note_bytes

#: Cache line, and enough for any vector load a runtime does.
ALIGN: Final = 64
PAGE: Final = mmap.PAGESIZE
#: A client or worker cannot shrink, grow or unseal the memory under the others: no SIGBUS.
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _round(value: int, to: int) -> int:
    return -(-value // to) * to


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each tensor lies within a slot."""

    #: (offset, bytes) of each input, then of each output, from the slot's start.
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    #: Bytes from one slot to the next.
    stride: int
    slots: int
    #: The same of the note; no bytes where the tensors never vary.
    note: tuple[int, int] = (0, 0)

    @staticmethod
    def of(
        inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], slots: int, *, noted: bool = False
    ) -> Layout:
        """Layout for these tensors; `noted` = with a note per slot."""
        offset = 0
        places: list[tuple[int, int]] = []
        for spec in (*inputs, *outputs):
            places.append((offset, spec.capacity))
            offset = _round(offset + spec.capacity, ALIGN)
        note = (offset, note_bytes(len(places))) if noted else (0, 0)
        offset += note[1]
        return Layout(
            inputs=tuple(places[: len(inputs)]),
            outputs=tuple(places[len(inputs) :]),
            stride=max(_round(offset, PAGE), PAGE),
            slots=slots,
            note=note,
        )

    @property
    def size(self) -> int:
        """Bytes of the whole region."""
        return self.stride * self.slots


class Region:
    """A mapped memfd with slots of one layout. `close` unmaps; views handed out must be released first."""

    __slots__ = ("fd", "inputs", "layout", "map", "notes", "outputs", "view")

    def __init__(self, fd: int, layout: Layout) -> None:
        self.fd = fd
        self.layout = layout
        self.map = mmap.mmap(fd, layout.size)
        self.view = memoryview(self.map)
        #: inputs[slot][i] and outputs[slot][i]: byte views of the tensors, made once.
        self.inputs = [self._views(slot, layout.inputs) for slot in range(layout.slots)]
        self.outputs = [self._views(slot, layout.outputs) for slot in range(layout.slots)]
        self.notes = [self._views(slot, (layout.note,))[0] for slot in range(layout.slots)]

    def _views(self, slot: int, places: tuple[tuple[int, int], ...]) -> tuple[memoryview, ...]:
        start = slot * self.layout.stride
        return tuple(self.view[start + offset : start + offset + size] for offset, size in places)

    @staticmethod
    def create(layout: Layout, name: str) -> Region:
        """A new sealed memfd, mapped."""
        fd = os.memfd_create(f"edgeai-{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, layout.size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            return Region(fd, layout)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Unmap and close; safe to call twice."""
        if self.fd < 0:
            return
        for views in (*self.inputs, *self.outputs):
            for view in views:
                view.release()
        for note in self.notes:
            note.release()
        self.inputs, self.outputs, self.notes = [], [], []
        self.view.release()
        self.map.close()
        os.close(self.fd)
        self.fd = -1
