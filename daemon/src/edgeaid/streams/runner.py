"""One stream as the daemon sees it: its process, kept alive; its state, counters and feeds. No frame comes here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .. import errors
from ..serving.plane import Plane
from ..worker.wire import Kind
from .feed import Feed
from .handle import StreamHandle
from .leases import Leases, Terms
from .memory import DROPPED, Count, Shared, frame_bytes, under_way
from .messages import Message
from .sources import redacted
from .states import State
from .table import Stream

log = logging.getLogger(__name__)

#: Starting an interpreter that imports numpy and the image library, on a board that has just booted and is busy.
OPEN_SECONDS: Final = 60.0
HALT_SECONDS: Final = 4.0
PICTURE_SECONDS: Final = 10.0
#: Waits before a process that ended is started again; the last one repeats.
PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
#: A process that ran so long starts at the first wait again.
SETTLED_SECONDS: Final = 30.0
#: Its stages have not moved for so long: it hangs.
HANG_SECONDS: Final = 30.0
TICK_SECONDS: Final = 1.0
_BAD: Final = (State.FAILED, State.NO_SIGNAL, State.RESTARTING)
_SECRET_KEYS: Final = ("password", "passwd", "token", "secret", "key")


class StreamRunner:
    """One stream. `directory` is where its journal and snapshots go; None = nowhere."""

    def __init__(
        self,
        stream: Stream,
        table: Mapping[str, Any],
        plane: Plane,
        directory: Path | None,
        before: StreamRunner | None = None,
    ) -> None:
        self.stream = stream
        self.table = table
        self.directory = directory
        self.plane = plane
        # Who listens to a stream goes on listening when its table changes.
        self.events: Feed = before.events if before is not None else Feed()
        self.results: Feed = before.results if before is not None else Feed(keep=1)
        self.state = State.STOPPED
        self.reason = ""
        self.since = time.time()
        self.restarts = 0
        self.status: dict[str, Any] = {}
        #: Model name -> id of the device that answered last.
        self.devices: dict[str, str] = {}
        self._shared: Shared | None = None
        self._handle: StreamHandle | None = None
        self._leases: Leases | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self._tries = 0
        self._started = 0.0
        self._exited = asyncio.Event()
        self._starts = 0

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run until `stop`; errors are shown in the state."""
        if self._wanted:
            return
        self._wanted = True
        self._tries = 0
        if self._shared is None:
            self._shared = Shared.create(self.stream.name, frame_bytes(self.stream.size))
        self._set_state(State.STARTING)
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """End the process: ask it, then kill it."""
        if not self._wanted:
            return
        self._wanted = False
        handle = self._handle
        if handle is not None and handle.alive:
            with contextlib.suppress(errors.EdgeaiError):
                await handle.call(Message.HALT, {}, timeout=HALT_SECONDS)
            await handle.stop()
            self._gone(handle)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._set_state(State.STOPPED)

    async def restart(self) -> None:
        """Another process, where there is one."""
        if self._wanted:
            await self.stop()
            self.start()

    async def close(self, *, final: bool = True) -> None:
        """Stop, and let go of the memory: the counters are gone. `final`: so are its listeners."""
        await self.stop()
        if final:
            self.events.close()
            self.results.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    async def _keep(self) -> None:
        """A process for as long as the stream is wanted."""
        while self._wanted:
            self._started = time.monotonic()
            self._exited.clear()
            try:
                await self._spawn()
            except (errors.DeviceError, errors.DeadlineExceeded) as error:
                self._set_state(State.RESTARTING, str(error))
            except errors.EdgeaiError as error:  # its table cannot work here; trying again would not help
                self._set_state(State.FAILED, str(error))
                return
            if self._handle is not None:
                await self._watch()
            if time.monotonic() - self._started > SETTLED_SECONDS:
                self._tries = 0
            await asyncio.sleep(PAUSES[min(self._tries, len(PAUSES) - 1)])
            self._tries += 1

    async def _spawn(self) -> None:
        assert self._shared is not None  # noqa: S101  made by start
        handle = await StreamHandle.spawn(
            self.plane.spawner,
            f"stream {self.stream.name}",
            self._on_message,
            lambda cause: self._on_exit(handle, cause),
        )
        self._handle = handle
        self._leases = Leases(self.plane, handle, self._terms, self._answered_by)
        data = json.dumps(self.table).encode()
        fd = os.memfd_create("edgeai-stream-table", os.MFD_CLOEXEC)
        self._starts += 1
        body = {
            "name": self.stream.name,
            "size": len(data),
            "reads": [str(d) for d in self.plane.registry.directories()],
            "directory": str(self.directory) if self.directory is not None else "",
            # Names of objects are unique over restarts, as Frigate's are: the time and a number.
            "prefix": f"{time.time():.3f}{self._starts:x}",
        }
        try:
            os.write(fd, data)
            if self.results.listeners:
                self.listen()
            await handle.call(Kind.OPEN, body, (self._shared.fd, fd), timeout=OPEN_SECONDS)
        except errors.EdgeaiError:
            handle.kill("did not open the stream")
            await self._exited.wait()
            raise
        finally:
            os.close(fd)

    def _terms(self) -> Terms:
        deadline = self.stream.deadline_ms / 1e3
        return Terms(self.stream.priority, deadline or self.plane.config.limits.request_seconds)

    async def _watch(self) -> None:
        """Until the process has ended: let go of old models, notice stages that hang."""
        while not self._exited.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), TICK_SECONDS)
            if self._leases is not None:
                self._leases.sweep()
            handle, shared = self._handle, self._shared
            if handle is None or shared is None:
                continue
            still = (time.monotonic_ns() - shared.get(Count.ALIVE_NS)) / 1e9
            if still > HANG_SECONDS:
                handle.kill(f"has not moved for {HANG_SECONDS:g} s: one of its stages hangs")

    def _on_exit(self, handle: StreamHandle, cause: str) -> None:
        self._gone(handle)
        self._exited.set()
        if self._wanted:
            self.restarts += 1
            self.plane.events.publish(
                "worker-died",
                f"stream {self.stream.name!r}: its process {cause}",
                level=logging.ERROR,
                stream=self.stream.name,
                cause=cause,
            )
            self._set_state(State.RESTARTING, f"its process {cause}")

    def _gone(self, handle: StreamHandle) -> None:
        """The process has ended: its programs end with it, its slots are free, its frames are counted."""
        if handle is not self._handle:
            return
        self._handle = None
        handle.kill_group()
        if self._leases is not None:
            self._leases.close()
            self._leases = None
        if self._shared is not None:
            self._shared.add(Count.DROPPED_STOPPED, self._shared.under_way())

    # --- messages of the process -------------------------------------------------------------------------------------

    def _on_message(self, kind: int, status: int, number: int, body: dict[str, Any]) -> None:
        if kind in (Message.INFER, Message.GIVE, Message.WANT):
            if self._leases is not None:
                self._leases.take(kind, status, number, body)
        elif kind == Message.RESULT:
            self.results.publish("result", body)
        elif kind == Message.EVENT:
            self.events.publish(str(body.get("type", "event")), body)
        elif kind == Message.STATUS:
            self.status = body
        elif kind == Message.STATE and self._wanted:
            self._set_state(State(body["state"]), body["reason"])

    def _set_state(self, state: State, reason: str = "") -> None:
        if (state, reason) == (self.state, self.reason):
            return
        changed = state is not self.state
        self.state, self.reason = state, reason
        if not changed and not reason:
            return
        self.since = time.time()
        text = f"stream {self.stream.name!r} is {state}{': ' + reason if reason else ''}"
        level = logging.WARNING if state in _BAD else logging.INFO
        self.plane.events.publish("stream-state", text, level=level, stream=self.stream.name, state=str(state))
        value = {"type": "state", "stream": self.stream.name, "time": round(self.since, 3)}
        self.events.publish("state", {**value, "state": str(state), "reason": reason})

    def _answered_by(self, model: str, device: str) -> None:
        before = self.devices.get(model)
        if before == device:
            return
        self.devices[model] = device
        if before is not None:
            value = {"type": "device", "stream": self.stream.name, "time": round(time.time(), 3)}
            self.events.publish("device", {**value, "model": model, "device": device, "before": before})

    # --- what clients ask -------------------------------------------------------------------------------------------

    async def picture(self, *, boxes: bool, width: int = 0) -> tuple[bytes, int]:
        """(JPEG, number of the frame) of the newest frame. Unavailable where there is none."""
        handle = self._handle
        if handle is None:
            raise errors.Unavailable(f"stream {self.stream.name!r} is {self.state}; it has no picture")
        body = {"boxes": boxes, "width": width}
        answer, fds = await handle.call(Message.PICTURE, body, timeout=PICTURE_SECONDS, gives_file=True)
        try:
            return os.pread(fds[0], answer["size"], 0), answer["frame"]
        finally:
            for fd in fds:
                os.close(fd)

    def listen(self) -> None:
        """Send the process whether each result is followed; called when the number of listeners changes."""
        if self._handle is not None:
            self._handle.tell(Message.LISTEN, {"on": self.results.listeners > 0})

    def count(self, which: Count) -> int:
        """A counter; 0 when the stream never ran."""
        return self._shared.get(which) if self._shared is not None else 0

    def frames(self) -> dict[str, Any]:
        """Where the frames went: captured = gated + inferred + all dropped + under way."""
        counts = self._shared.frames() if self._shared is not None else dict.fromkeys(Count, 0)
        return {
            "captured": counts[Count.CAPTURED],
            "gated": counts[Count.GATED],
            "inferred": counts[Count.INFERRED],
            "late": counts[Count.LATE],
            "dropped": {c.name.removeprefix("DROPPED_").lower(): counts[c] for c in DROPPED},
            "under_way": under_way(counts),
        }

    def snapshot(self, *, whole: bool = False) -> dict[str, Any]:
        """What clients see; no user names, passwords or tokens."""
        last = self.count(Count.FRAME_NS)
        table: dict[str, Any] = {
            "name": self.stream.name,
            "state": str(self.state),
            "reason": self.reason,
            "since": round(self.since, 3),
            "source": redacted(self.stream.source),
            "frames": self.frames(),
            "last_frame_s": round((time.monotonic_ns() - last) / 1e9, 3) if last else None,
            "connections": self.count(Count.CONNECTIONS),
            "restarts": self.restarts,
            "requests": self.count(Count.REQUESTS),
            "events": self.count(Count.EVENTS),
            "lost": {"webhooks": self.count(Count.LOST_WEBHOOKS), "files": self.count(Count.LOST_FILES)},
            "models": {name: self.devices.get(name, "") for name in self.stream.models},
            "pid": self._handle.pid if self._handle is not None else None,
            **(self.status if self._handle is not None else {}),
        }
        if whole:
            table["table"] = public(self.table)
        return table


def public(value: Any, key: str = "") -> Any:
    """A table without secrets."""
    if isinstance(value, Mapping):
        return {k: public(v, str(k).lower()) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [public(v, key) for v in value]
    if isinstance(value, str):
        return "***" if any(word in key for word in _SECRET_KEYS) else redacted(value)
    return value
