"""The child process of one stream: opened by the daemon, ends with its socket."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from ... import errors
from ...systemd import set_up_logging
from ...worker import wire
from ...worker.wire import Kind
from ..memory import Count, Shared, frame_bytes
from ..messages import Message
from ..sources import redacted, understand
from ..states import State
from ..table import Stream, from_table
from .capture import Capture
from .frames import Frame, Ring
from .jpeg import jpeg
from .link import Link
from .pipeline import Outcome, Pipeline
from .sandbox import shut_in
from .sinks import Sinks
from .stages import Thing

log = logging.getLogger(__name__)

#: Results that no client follows are sent so rarely, in seconds: they answer "what is there now?".
RESULT_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 1.0
#: A stream of a file gives its last frames so long.
DRAIN_SECONDS: Final = 60.0
HALT_SECONDS: Final = 1.5
#: A thread that has an answer to send waits no longer for one that computes: by default it may be 5 ms.
SWITCH_SECONDS: Final = 0.0005
#: Kinds of event that have a snapshot.
PICTURED: Final = ("new", "enter", "dwell", "cross", "class")


class Process:
    """One stream at work."""

    def __init__(self, sock: socket.socket) -> None:
        self.link = Link(sock)
        self.link.calls = {Kind.OPEN: self.open, Message.HALT: self.halt, Message.PICTURE: self.picture}
        self._stream: Stream | None = None
        self._shared: Shared | None = None
        self._ring: Ring | None = None
        self._capture: Capture | None = None
        self._pipeline: Pipeline | None = None
        self._sinks: Sinks | None = None
        self._latest: tuple[Frame, list[Thing]] | None = None
        self._latest_lock = threading.Lock()
        self._result_at = 0.0
        self._problem = ""
        self._state = (State.STARTING, "")
        self._halting = threading.Event()

    def open(self, call: int, body: dict[str, Any], fds: list[int]) -> None:
        """The stream's table (in the second descriptor) and the shared memory (the first)."""
        try:
            table = json.loads(os.pread(fds[1], body["size"], 0))
            stream = from_table(body["name"], table)
            shut_in(stream, body["reads"], body["directory"])
            fd = os.dup(fds[0])
            os.set_inheritable(fd, False)
            shared = Shared(fd, frame_bytes(stream.size))
            self._stream, self._shared, self._ring = stream, shared, Ring(shared)
            self._begin(stream, shared, self._ring, body)
            self.link.answer(call, {})
        except Exception as error:  # the daemon decides what an error means
            log.debug("open", exc_info=True)
            text = str(error) if isinstance(error, errors.EdgeaiError) else f"{type(error).__name__}: {error}"
            self.link.answer(call, {"error": text[:4000]}, wire.status_of(error))

    def _begin(self, stream: Stream, shared: Shared, ring: Ring, body: dict[str, Any]) -> None:
        # The capture reports a source that cannot be understood as the stream's state.
        live = True
        with contextlib.suppress(errors.EdgeaiError):
            live = understand(stream.source).live
        shared.put(Count.ALIVE_NS, time.monotonic_ns())
        self._pipeline = Pipeline(
            stream,
            ring,
            self.link,
            body["prefix"],
            live=live,
            on_outcome=self._outcome,
            on_problem=self._set_problem,
        )
        self._sinks = Sinks(stream, shared, Path(body["directory"]) if body["directory"] else None)
        self._capture = Capture(stream, ring, self._pipeline.offer, self._set_state, self._ended)
        self._sinks.start()
        self._pipeline.start()
        self._capture.start()
        threading.Thread(target=self._tell_status, name="status", daemon=True).start()

    # --- what happens in it -----------------------------------------------------------------------------------------

    def _set_state(self, state: State, reason: str) -> None:
        self._state = (state, reason)
        self.link.tell(Message.STATE, {"state": str(state), "reason": redacted(reason)})

    def _set_problem(self, problem: str) -> None:
        """Why frames are dropped while the camera works; "" = they are not any more."""
        if problem == self._problem:
            return
        self._problem = problem
        state, reason = self._state
        if state is State.RUNNING:
            self.link.tell(Message.STATE, {"state": str(state), "reason": problem or reason})

    def _outcome(self, outcome: Outcome) -> None:
        scene = outcome.scene
        assert self._stream is not None  # noqa: S101  open made all of them
        assert self._ring is not None  # noqa: S101  the same
        self._ring.hold(scene.frame.slot)
        with self._latest_lock:
            before, self._latest = self._latest, (scene.frame, scene.objects)
        if before is not None:
            self._ring.release(before[0].slot)
        for event in scene.events:
            self._event(event, outcome)
        now = time.monotonic()
        if self.link.listening or now - self._result_at >= RESULT_SECONDS:
            self._result_at = now
            self.link.tell(Message.RESULT, self._result(outcome))

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        scene = outcome.scene
        return {
            "frame": scene.frame.number,
            "time": round(scene.frame.time, 3),
            "width": scene.frame.width,
            "height": scene.frame.height,
            "gated": outcome.gated,
            "latency_ms": round(outcome.latency_ms, 2),
            "compute_ms": round(outcome.compute_ns / 1e6, 3),
            "objects": [o.to_json(scene.frame) for o in scene.objects],
            **({"classes": scene.classes} if scene.classes else {}),
        }

    def _event(self, event: dict[str, Any], outcome: Outcome) -> None:
        assert self._stream is not None  # noqa: S101  open made all of them
        assert self._shared is not None  # noqa: S101  the same
        assert self._sinks is not None  # noqa: S101  the same
        event["stream"] = self._stream.name
        name, data = "", b""
        if self._stream.events.snapshot and event["type"] in PICTURED:
            scene = outcome.scene
            name = f"{event.get('id', self._stream.name)}-{event['frame']}-{event['type']}.jpg"
            things = [o for o in scene.objects if o.life is not None and o.life.identity == event.get("id")]
            data = jpeg(scene.picture, things)
            event["snapshot"], event["has_snapshot"] = name, True
            for thing in things:
                if thing.life is not None:
                    thing.life.has_snapshot = True
        self._shared.add(Count.EVENTS)
        self.link.tell(Message.EVENT, event)
        self._sinks.put(event, name, data)

    def _ended(self) -> None:
        """The file is at its end: let what is under way finish, and end the tracked objects."""
        assert self._pipeline is not None  # noqa: S101  open made all of them
        self._pipeline.drain(DRAIN_SECONDS)
        self._last_events()

    def _last_events(self) -> None:
        with self._latest_lock:
            latest = self._latest
        if latest is None or self._pipeline is None or self._ring is None:
            return
        frame = latest[0]
        from .stages import Scene  # made here only

        scene = Scene("", frame, self._ring.pixels(frame))
        for event in self._pipeline.last_events(frame):
            self._event(event, Outcome(scene, gated=True, latency_ms=0.0, compute_ns=0))

    def _tell_status(self) -> None:
        assert self._shared is not None  # noqa: S101  open made all of them
        assert self._pipeline is not None  # noqa: S101  the same
        assert self._capture is not None  # noqa: S101  the same
        before = (self._shared.get(Count.CAPTURED), self._shared.get(Count.INFERRED), time.monotonic())
        while not self._halting.wait(STATUS_SECONDS):
            now = (self._shared.get(Count.CAPTURED), self._shared.get(Count.INFERRED), time.monotonic())
            seconds = now[2] - before[2]
            body = {
                "fps": round((now[0] - before[0]) / seconds, 2),
                "inferred_fps": round((now[1] - before[1]) / seconds, 2),
                "size": list(self._capture.size),
                "latency": self._pipeline.quantiles(),
                "counts": self._pipeline.stages.happenings.counts(),
            }
            before = now
            self.link.tell(Message.STATUS, body)

    # --- what the daemon asks ---------------------------------------------------------------------------------------

    def picture(self, call: int, body: dict[str, Any], _fds: list[int]) -> None:
        """The newest frame as JPEG; encoded aside, so that messages do not wait for it."""
        threading.Thread(target=self._picture, args=(call, body), name="jpeg", daemon=True).start()

    def _picture(self, call: int, body: dict[str, Any]) -> None:
        with self._latest_lock:
            latest = self._latest
            if latest is not None and self._ring is not None:
                self._ring.hold(latest[0].slot)
        if latest is None or self._ring is None:
            error = errors.Unavailable("the stream has no frame yet")
            self.link.answer(call, {"error": str(error)}, wire.status_of(error))
            return
        frame, things = latest
        try:
            data = jpeg(self._ring.picture(frame), things if body["boxes"] else None, body["width"])
        finally:
            self._ring.release(frame.slot)
        fd = os.memfd_create("edgeai-frame", os.MFD_CLOEXEC)
        with open(os.dup(fd), "wb") as stream:
            stream.write(data)
        self.link.answer(call, {"size": len(data), "frame": frame.number, "time": round(frame.time, 3)}, fd=fd)

    def halt(self, call: int, _body: dict[str, Any], _fds: list[int]) -> None:
        """Finish; messages still have to be read meanwhile."""
        threading.Thread(target=self._halt, args=(call,), name="halt", daemon=True).start()

    def _halt(self, call: int) -> None:
        self.stop()
        self.link.answer(call, {})

    def stop(self) -> None:
        """End the capture (and its program), then the stages, then the sinks."""
        self._halting.set()
        if self._capture is not None:
            self._capture.halt()
            self._capture.join(HALT_SECONDS)
        if self._pipeline is not None:
            self._pipeline.halt()
            self._last_events()
        if self._sinks is not None:
            self._sinks.finish(HALT_SECONDS)


def main(fd: int) -> None:
    """Entry point of the child; `fd` is a connected SOCK_SEQPACKET socket."""
    # A group of its own: the daemon ends it with all that it started. Handlers, unlike SIG_IGN, are not inherited.
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    sys.setswitchinterval(SWITCH_SECONDS)
    set_up_logging(os.environ.get("EDGEAI_LOG_LEVEL", "info"))
    sock = socket.socket(fileno=fd)
    process = Process(sock)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.link.run()
    process.stop()
    os._exit(0)
