"""A model that is new here runs in a worker of its own first: what it breaks is its own.

Opened, self-tested, warmed up and put away there, under its own time limit, at low priority. Only a model that passed
is given to a worker that serves others. Its pusher gets the reason when it did not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from .. import errors
from ..config import Device, Limits
from ..models import repository
from ..models.gate import selftest_cases
from ..worker.handle import WorkerHandle
from ..worker.spawner import Spawner
from ..worker.wire import Kind
from .locks import held
from .model import LiveModel

log = logging.getLogger(__name__)

#: Models on probation at once; the others wait.
AT_ONCE: Final = 2
#: Opening the CPU's runtime in a fresh worker.
OPEN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Passed:
    """What a self-test measured."""

    #: Golden cases that were compared, and the largest difference among them.
    cases: int
    worst: float
    #: Nanoseconds of the quickest run; 0 = nothing could be run.
    infer_ns: int


class Probation:
    """Runs new models in workers of their own."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner
        self._places = asyncio.Semaphore(AT_ONCE)

    async def test(self, live: LiveModel, device: Device, limits: Limits) -> Passed:
        """Run `live` in a worker of its own, opened like `device`.

        InvalidModel says what it did; DeviceError that no worker could be had for it, Unavailable that others take
        all the time there is.
        """
        busy = f"model {live.key!r} was not tried: {AT_ONCE} others have been for {limits.load_seconds:g} s"
        async with held(self._places, limits.load_seconds, busy), self._worker(live, device) as (handle, facts):
            return await _pass(live, device.target, facts, handle, limits)

    @asynccontextmanager
    async def _worker(self, live: LiveModel, device: Device) -> AsyncIterator[tuple[WorkerHandle, dict[str, Any]]]:
        """A fresh worker and the facts of its device; ended when this is left."""
        handle = await WorkerHandle.spawn(self._spawner, f"new {live.name}", lambda *_: None, lambda _: None)
        try:
            body = {
                "target": device.target,
                "device": device.device,
                "options": dict(device.options),
                "background": True,
            }
            answer, _ = await handle.call(Kind.OPEN, body, timeout=OPEN_SECONDS)
            yield handle, answer["facts"]
        finally:
            handle.kill("is needed no more")  # nothing in it is worth an orderly end
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await handle.ended()


def load_body(live: LiveModel, target: str, path: Path) -> dict[str, Any]:
    """What a worker gets to load a model; `path` is its artifact for `target`."""
    manifest = live.stored.manifest
    options = next((dict(a.options) for a in manifest.artifacts if a.target == target), {})
    if manifest.ensemble is not None:
        options = {"ensemble": asdict(manifest.ensemble)}
    return {
        "model": live.number,
        # The number distinguishes a reloaded model from the one it replaces: both are in the worker for a moment.
        "key": f"{live.key}#{live.number}",
        "artifact": str(path),
        "options": options,
        "max_batch_size": manifest.max_batch_size,
        "names": dict(manifest.names),
    }


async def _pass(live: LiveModel, target: str, facts: dict[str, Any], handle: WorkerHandle, limits: Limits) -> Passed:
    path = await asyncio.get_running_loop().run_in_executor(None, repository.verify, live.stored, target)
    cases, tolerance = selftest_cases(live.stored, str(facts.get("family", "")))
    steps: tuple[tuple[str, Kind, dict[str, Any]], ...] = (
        ("was loaded", Kind.LOAD, load_body(live, target, path)),
        ("ran its self-test", Kind.SELFTEST, {"cases": cases, "tolerance": tolerance}),
        ("was taken out again", Kind.UNLOAD, {}),
        ("had run: the heap is damaged", Kind.PING, {"heap": True}),
    )
    answers: dict[Kind, dict[str, Any]] = {}
    until = time.monotonic() + limits.load_seconds
    for doing, kind, body in steps:
        try:
            answers[kind], _ = await handle.call(
                kind, {"model": live.number, **body}, timeout=max(until - time.monotonic(), 0.001)
            )
        except errors.DeadlineExceeded as error:
            raise errors.InvalidModel(
                f"model {live.key!r} was not through load and self-test within {limits.load_seconds:g} s "
                "(limits.load_seconds); it was ended"
            ) from error
        except errors.DeviceError as error:
            if handle.alive:
                raise
            # The kernel ends a process with SIGKILL, for lack of memory; every other signal is a fault in the runtime.
            crash = (
                ""
                if "SIGKILL" in str(error)
                else "; the runtime crashes on this file: export it again, with a current converter"
            )
            raise errors.InvalidModel(
                f"model {live.key!r} ended its worker while it {doing}: {error}{crash}"
            ) from error
    measured = answers[Kind.SELFTEST]
    seconds = measured["infer_ns"] / 1e9
    if seconds > limits.invoke_seconds:
        raise errors.InvalidModel(
            f"model {live.key!r} takes {seconds:.1f} s for one inference here, more than the "
            f"{limits.invoke_seconds:g} s after which a worker counts as hung (limits.invoke_seconds)"
        )
    return Passed(measured["cases"], measured["worst"], measured["infer_ns"])
