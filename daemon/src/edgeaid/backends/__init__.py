"""One package per runtime; `create` imports only the one asked for."""

from __future__ import annotations

import importlib
from typing import Final

from ..errors import Unsupported
from .base import Backend, DeviceFacts, ModelIO, Phases

#: Target name (as in a manifest's `[artifacts.<target>]`) -> module below this package.
BACKENDS: Final[dict[str, str]] = {
    "cpu": "tflite.backend",
    "edgetpu": "edgetpu.backend",
    "ncs": "ncs.backend",
    "ncs2": "openvino.backend",
    "k210": "k210.backend",
}

__all__ = ["BACKENDS", "Backend", "DeviceFacts", "ModelIO", "Phases", "create"]


def create(target: str) -> Backend:
    """A closed backend for `target`; raises Unsupported for an unknown one."""
    module = BACKENDS.get(target)
    if module is None:
        raise Unsupported(f"no backend for target {target!r}; known targets: {', '.join(BACKENDS)}")
    backend: Backend = importlib.import_module(f"{__name__}.{module}").create()
    return backend
