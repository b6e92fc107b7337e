"""What runs in a worker process: one thread, one device, one socket to the daemon.

Frames are answered in order. The process ends when the daemon's end of the socket closes, and the kernel kills it when
the daemon dies (see `forkserver`), even in the middle of a call into a runtime that never returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import errors
from . import wire
from .loaded import Loaded, spec_from
from .regions import Layout, Region
from .wire import HEADER, PHASES, Kind

if TYPE_CHECKING:
    from ..backends.base import Array, Backend, Phases


#: glibc's malloc.h.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3


class Worker:
    """Serves one backend (or, for the target "media", pictures) on one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.backend: Backend | None = None
        self.target = ""
        #: Runs after each of which the heap is looked at.
        self.watched = 0
        self.models: dict[int, Loaded] = {}
        self.handlers: dict[int, Callable[[dict[str, Any], list[int]], dict[str, Any] | tuple[dict[str, Any], int]]] = {
            Kind.OPEN: self.open,
            Kind.LOAD: self.load,
            Kind.ATTACH: self.attach,
            Kind.UNLOAD: self.unload,
            Kind.SELFTEST: self.selftest,
            Kind.PING: self.ping,
            Kind.DECODE: self.decode,
        }

    def run(self) -> None:
        """Answer frames until the daemon closes its end."""
        infer = Kind.INFER
        unpack = HEADER.unpack_from
        while True:
            data, fds = self.receive()
            if not data:
                return
            kind, _, slot, model, request = unpack(data)
            if kind == infer:
                result = self.infer(slot, model, request)
                if len(data) > HEADER.size:
                    result += self._ranked(slot, model, result, data)
                self.sock.send(result)
                continue
            self._answer(kind, request, data, fds)

    def receive(self) -> tuple[bytes, list[int]]:
        """The next frame and its descriptors; b"" when the daemon has closed its end."""
        return wire.receive(self.sock)

    def _answer(self, kind: int, request: int, data: bytes, fds: list[int]) -> None:
        out_fd = -1
        try:
            result = self.picture(data, fds) if kind == Kind.PICTURE else self._handle(kind, data, fds)
            body, out_fd = result if isinstance(result, tuple) else (result, -1)
            reply = wire.pack_json(Kind.REPLY, request, body)
        except Exception as error:  # the daemon decides what an error means
            text = str(error) if isinstance(error, errors.EdgeaiError) else f"{type(error).__name__}: {error}"
            reply = wire.pack_json(Kind.REPLY, request, {"error": text[:4000]}, wire.status_of(error))
        finally:
            wire.close_all(fds)
        if out_fd >= 0:
            socket.send_fds(self.sock, [reply], [out_fd])
            os.close(out_fd)
        else:
            self.sock.send(reply)

    def _handle(self, kind: int, data: bytes, fds: list[int]) -> dict[str, Any] | tuple[dict[str, Any], int]:
        handler = self.handlers.get(kind)
        if handler is None:
            raise errors.InvalidRequest(f"unknown frame kind {kind}")
        return handler(json.loads(data[HEADER.size :]), fds)

    # --- JSON frames ------------------------------------------------------------------------------------------------

    def open(self, body: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        """Open the device; {"background": true} gives other processes precedence.

        {"watched": n}: after each of the first n runs the process ends when the heap is damaged.
        """
        self.watched = body.get("watched", 0)
        if body.get("background"):
            with contextlib.suppress(OSError):  # forbidden in some sandboxes
                os.nice(10)
        self.target = body["target"]
        if self.target == "media":
            from ..vision import media

            _keep_memory()
            return {"runtime": media.runtime(), "description": "pictures", "facts": {}}
        from ..backends import create

        self.backend = create(self.target)
        facts = self.backend.open(body["device"], body["options"])
        return {"runtime": facts.runtime, "description": facts.description, "facts": dict(facts.facts)}

    def ping(self, body: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        """Alive; and what the device says of itself where it can: temperature, throttling.

        {"heap": true} ends the process when a model has damaged the heap.
        """
        if body.get("heap"):
            from .heap import exercise

            exercise()
        health = getattr(self.backend, "health", None)
        return {"health": dict(health())} if health is not None else {}

    def load(self, body: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        assert self.backend is not None  # noqa: S101  the daemon sends OPEN first
        from .variable import served

        options = {**body["options"], "max_batch_size": body["max_batch_size"]}
        io = self.backend.load(body["key"], Path(body["artifact"]), options)
        loaded, batch = served(body["key"], io, body["max_batch_size"], body["names"])
        self.models[body["model"]] = loaded
        return {
            "inputs": [asdict(s) for s in loaded.inputs],
            "outputs": [asdict(s) for s in loaded.outputs],
            "facts": dict(io.facts),
            "noted": loaded.noted,
            "state": io.state,
            "batch": batch,
        }

    def attach(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        number = body["model"]
        inputs = tuple(spec_from(t) for t in body["inputs"])
        outputs = tuple(spec_from(t) for t in body["outputs"])
        if self.target == "media":
            from ..vision import labelling

            rules = labelling.rules_from(body["media"], inputs)
            self.models[number] = Loaded(body["key"], inputs, outputs, media=rules, noted=body["noted"])
        loaded = self.models[number]
        fd = os.dup(fds[0])
        os.set_inheritable(fd, False)
        loaded.region = Region(fd, Layout.of(inputs, outputs, body["slots"], noted=loaded.noted))
        loaded.views = [None] * body["slots"]
        return {}

    def unload(self, body: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        loaded = self.models.pop(body["model"], None)
        if loaded is not None:
            if self.backend is not None:
                self.backend.unload(loaded.key)
            loaded.views = []
            if loaded.region is not None:
                loaded.region.close()
        return {}

    def selftest(self, body: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        from .selftest import run

        assert self.backend is not None  # noqa: S101  the daemon sends OPEN first
        return run(self.backend, self.models[body["model"]], body)

    def picture(self, data: bytes, fds: list[int]) -> dict[str, Any]:
        """Not JSON: the picture's file is in the message, or in the memfd that came with it."""
        from ..vision import media

        _, _, slot, model, _ = HEADER.unpack_from(data)
        loaded = self.models[model]
        picture = media.bytes_of(fds[0]) if fds else data[HEADER.size :]
        if not loaded.inputs[0].fixed and loaded.media.picture is not None and loaded.media.picture.resize == "keep":
            return self._pixels(loaded, slot, picture)
        if loaded.noted:
            from .variable import inputs

            out = inputs(loaded, slot)[0]
        else:
            out = self._views(loaded, slot)[0][0]
        spec = loaded.inputs[0].one
        return media.prepare(picture, loaded.media, spec, out)

    def _pixels(self, loaded: Loaded, slot: int, picture: bytes) -> dict[str, Any]:
        from ..vision import media
        from . import note

        region = loaded.attached
        room = region.inputs[slot][0]
        placement, form = media.prepare_pixels(picture, loaded.inputs[0], room)
        note.write_form(region.notes[slot], 0, note.Form(*form))
        return placement

    def decode(self, body: dict[str, Any], fds: list[int]) -> dict[str, Any] | tuple[dict[str, Any], int]:
        from ..vision import media
        from . import variable

        loaded, slot = self.models[body["model"]], body["slot"]
        outputs = variable.outputs(loaded, slot) if loaded.noted else self._views(loaded, slot)[1]
        picture = media.bytes_of(fds[0]) if fds else None
        specs = [replace(s, shape=a.shape, room=0) for s, a in zip(loaded.outputs, outputs, strict=True)]
        return media.decode(loaded.media, specs, outputs, body, picture)

    # --- the path of a tensor ---------------------------------------------------------------------------------------

    def infer(self, slot: int, model: int, request: int) -> bytes:
        try:
            loaded = self.models[model]
            if loaded.noted:
                phases = self._infer_open(loaded, slot)
            else:
                views = loaded.views[slot] or self._views(loaded, slot)
                phases = self.backend.infer(loaded.key, views[0], views[1])  # type: ignore[union-attr]  # OPEN is first
            if self.watched:
                self._watch()
        except Exception as error:  # the daemon decides what an error means
            text = str(error) if isinstance(error, errors.EdgeaiError) else f"{type(error).__name__}: {error}"
            head = HEADER.pack(Kind.RESULT, wire.status_of(error), slot, model, request)
            return head + PHASES.pack(0, 0, 0) + text[:4000].encode()
        return HEADER.pack(Kind.RESULT, 0, slot, model, request) + PHASES.pack(*phases)

    def _ranked(self, slot: int, model: int, result: bytes, data: bytes) -> bytes:
        """The answer to the question behind an INFER: JSON of the best classes and of the nanoseconds that took.

        Empty when the run failed, or when there is no answer: the media worker is asked then, and says why.
        """
        if result[1]:  # status
            return b""
        from ..vision.scores import top

        started = time.monotonic_ns()
        loaded = self.models[model]
        try:
            asked = json.loads(data[HEADER.size :])
            values = self._views(loaded, slot)[1][0]
            classes = top(loaded.outputs[0], values, asked["activation"], asked["max_results"])
        except Exception:  # whatever the outputs are, the run was good
            return b""
        table = {"classes": classes, "ns": time.monotonic_ns() - started}
        text = json.dumps(table, separators=(",", ":")).encode()
        return text if len(result) + len(text) <= wire.MAX_MESSAGE else b""

    def _watch(self) -> None:
        """End here, with the request still under way that did the damage, instead of in another model's."""
        from .heap import exercise

        self.watched -= 1
        exercise()

    def _infer_open(self, loaded: Loaded, slot: int) -> Phases:
        from .variable import infer

        assert self.backend is not None  # noqa: S101  the daemon sends OPEN first
        return infer(self.backend, loaded, slot)

    def _views(self, loaded: Loaded, slot: int) -> tuple[Sequence[Array], Sequence[Array]]:
        views = loaded.views[slot]
        if views is None:
            from ..backends.base import as_array

            region = loaded.attached
            views = (
                [as_array(v, s) for v, s in zip(region.inputs[slot], loaded.inputs, strict=True)],
                [as_array(v, s) for v, s in zip(region.outputs[slot], loaded.outputs, strict=True)],
            )
            loaded.views[slot] = views
        return views


def _keep_memory() -> None:
    """Have the allocator keep what a picture took for the next one: to give back and ask for the pages of three copies
    of a camera's picture took a third of the time that decoding it takes. What is above 8 MiB goes back all the same.
    """
    import ctypes

    with contextlib.suppress(AttributeError):  # not every C library has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 8 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


def main(fd: int) -> None:
    """Entry point of a forked worker; `fd` is a connected SOCK_SEQPACKET socket."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Worker(socket.socket(fileno=fd)).run()
    os._exit(0)  # runtimes have been seen to crash in their exit handlers
