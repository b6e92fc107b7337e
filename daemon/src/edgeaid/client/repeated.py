"""The short way of a request that was made before: what it takes to make it again without coroutines."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import codec, http

#: Name, dtype and shape of each input.
Forms = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


@dataclass(slots=True)
class Request:
    """An inference that was asked for over HTTP."""

    forms: Forms
    #: All of the request before the tensors.
    start: bytes
    #: Bytes of the whole request.
    size: int
    #: How it was answered last.
    answer: codec.Known = codec.UNKNOWN


class Immediate(Protocol):
    """A transport that answers without coroutines, over connections that are open."""

    @property
    def is_open(self) -> bool:
        """As `Transport` says."""

    def ask_fast(self, message: bytes, fd: int) -> bytes:
        """`exchange_fast`."""

    def again(self, pieces: list[Any], size: int, start: bytes, length: int) -> bytes | http.Answer:
        """As `http.Connection` says."""

    @property
    def head(self) -> bytes:
        """As `http.Connection` says."""


def pieces_of(request: Request, inputs: codec.Inputs) -> list[Any] | None:
    """The request with other tensors; None where its inputs are anything but arrays of exactly its forms."""
    given: Sequence[Any] = (inputs,)
    if type(inputs) is not np.ndarray:
        if type(inputs) is not dict or len(inputs) != len(request.forms):
            return None
        given = [inputs.get(name) for name, _, _ in request.forms]
    elif len(request.forms) != 1:
        return None
    pieces: list[Any] = [request.start]
    for array, (_, dtype, shape) in zip(given, request.forms, strict=True):
        if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
            return None
        pieces.append(array if array.flags.c_contiguous else np.ascontiguousarray(array))
    return pieces


def check_status(status: int, answered: Mapping[str, str], data: bytes) -> None:
    """Raise the error that an answer stands for."""
    if status < 400:
        return
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(data)["error"]
    raise codec.error_of(status, text, answered)
