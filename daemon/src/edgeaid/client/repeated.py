"""The short way of a request that was made before: what it takes to make it again without coroutines."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from . import codec

#: dtype and shape of each input by name.
Forms = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


class Immediate(Protocol):
    """A transport that answers without coroutines, over connections that are open."""

    @property
    def is_open(self) -> bool:
        """As `Transport` says."""

    def ask_fast(self, message: bytes, fd: int) -> bytes:
        """`exchange_fast`."""

    def again(self, pieces: list[codec.Buffer]) -> tuple[int, dict[str, str], bytes]:
        """`exchange` of a request that is made already."""


def raw_inputs(inputs: codec.Inputs, forms: Forms) -> list[codec.Buffer] | None:
    """The bytes of arrays that have exactly these forms; None for anything else."""
    if type(inputs) is np.ndarray:
        inputs = dict(zip(forms, (inputs,), strict=False))
    if type(inputs) is not dict or len(inputs) != len(forms):
        return None
    data = []
    for name, (dtype, shape) in forms.items():
        array = inputs.get(name)
        if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
            return None
        data.append(codec.raw(array))
    return data


def check_status(status: int, answered: Mapping[str, str], data: bytes) -> None:
    """Raise the error that an answer stands for."""
    if status < 400:
        return
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(data)["error"]
    raise codec.error_of(status, text, answered)
