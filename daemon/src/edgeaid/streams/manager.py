"""All streams: from their files and clients to runners, and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import errors
from ..config import Config
from ..models.stages import Crop, Detect
from ..serving.plane import Plane
from ..tables import KeyPath, WrongValue
from . import table as tables
from .runner import StreamRunner
from .sources import understand
from .table import Stream

log = logging.getLogger(__name__)

#: Names of paths beside the streams' own.
_OWN: Final = "client"


@dataclass(frozen=True, slots=True)
class _Wanted:
    stream: Stream
    table: Mapping[str, Any]
    #: File that it comes from, or "client".
    origin: str


class StreamManager:
    """Streams by name. Without a state directory, what clients add is forgotten at the end."""

    def __init__(self, plane: Plane, config: Config) -> None:
        self.plane = plane
        self.config = config
        state = config.server.state_directory or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        self._state = Path(state) / "streams" if state else None
        self._wanted: dict[str, _Wanted] = {}
        self.runners: dict[str, StreamRunner] = {}
        #: Streams that a client has switched off or on, against what their file says.
        self._switched: dict[str, bool] = {}
        self._lock = asyncio.Lock()

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the files and start what is enabled. A file that is wrong is reported and left out."""
        wanted, switched = await self._run(self._read)
        self._switched = switched
        async with self._lock:
            for entry in wanted.values():
                await self._apply(entry)

    async def stop(self) -> None:
        """End all streams."""
        await asyncio.gather(*(r.close() for r in self.runners.values()))
        self.runners.clear()

    async def reconfigure(self, fresh: Config) -> None:
        """Read the files again: what changed starts anew, what is gone stops, what is wrong keeps its old table."""
        moved = fresh.models.repositories != self.config.models.repositories
        self.config = fresh
        wanted, _ = await self._run(self._read)
        async with self._lock:
            for name in [n for n, w in self._wanted.items() if n not in wanted and w.origin != _OWN]:
                await self._drop(name)
            for entry in wanted.values():
                await self._apply(entry)
            for runner in self.runners.values() if moved else ():
                await runner.restart()  # its process may read models where they were when it started

    def _read(self) -> tuple[dict[str, _Wanted], dict[str, bool]]:
        wanted: dict[str, _Wanted] = {}
        directory = self.config.streams.directory
        for file in sorted(directory.glob("*.toml")) if directory.is_dir() else []:
            try:
                for stream, table in tables.read(file):
                    wanted[stream.name] = _Wanted(stream, table, str(file))
            except errors.EdgeaiError as error:
                log.error("streams are left as they are: %s", error)
                for name, old in self._wanted.items():
                    if old.origin == str(file):
                        wanted[name] = old
        if self._state is None:
            return wanted, {}
        for file in sorted((self._state / "tables").glob("*.json")):
            try:
                table = json.loads(file.read_text())
                wanted.setdefault(file.stem, _Wanted(tables.from_table(file.stem, table), table, _OWN))
            except (OSError, ValueError, errors.EdgeaiError) as error:
                log.error("%s: %s", file, error)
        switched: dict[str, bool] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            switched = {str(k): bool(v) for k, v in json.loads((self._state / "switched.json").read_text()).items()}
        return wanted, switched

    async def _apply(self, entry: _Wanted) -> None:
        """Bring one stream to what is wanted; one that is the same already goes on undisturbed."""
        name = entry.stream.name
        runner = self.runners.get(name)
        if runner is None or runner.table != entry.table:
            if runner is not None:
                await runner.close(final=False)
            directory = self._state / "data" / name if self._state is not None else None
            runner = StreamRunner(entry.stream, entry.table, self.plane, directory, runner)
            self.runners[name] = runner
        self._wanted[name] = entry
        if self._switched.get(name, entry.stream.enabled):
            runner.start()
        else:
            await runner.stop()

    async def _drop(self, name: str) -> None:
        self._wanted.pop(name, None)
        self._switched.pop(name, None)
        runner = self.runners.pop(name, None)
        if runner is not None:
            await runner.close()

    # --- what clients ask -------------------------------------------------------------------------------------------

    def runner(self, name: str) -> StreamRunner:
        """A stream; NotFound."""
        runner = self.runners.get(name)
        if runner is None:
            known = ", ".join(sorted(self.runners)) or "none"
            raise errors.NotFound(f"no stream {name!r:.80}; known: {known}")
        return runner

    async def put(self, name: str, table: Mapping[str, Any], text: str = "") -> StreamRunner:
        """Add or change a stream. InvalidConfig leaves the old one as it is; it names the line of `text`, the TOML that
        the table was read from."""
        stream = tables.from_table(name, table)
        with tables.located(text):
            self._check_entry(stream)
        async with self._lock:
            old = self._wanted.get(name)
            if old is not None and old.origin != _OWN:
                raise errors.AlreadyExists(f"stream {name!r} is defined in {old.origin}; change it there and reload")
            if old is None and len(self.runners) >= self.config.streams.limit:
                raise errors.TooLarge(f"there are {len(self.runners)} streams already, the limit (streams.limit)")
            await self._run(self._store, name, table)
            self._switched.pop(name, None)
            await self._run(self._store_switched)
            await self._apply(_Wanted(stream, dict(table), _OWN))
        return self.runners[name]

    def _check_entry(self, stream: Stream) -> None:
        """WrongValue for what cannot work here. A model that is loading or broken may be mended; one that does not
        exist is most likely a slip."""
        path: KeyPath = ("stream", stream.name)
        try:
            understand(stream.source)
        except errors.InvalidConfig as error:
            raise WrongValue((*path, "source"), str(error)) from error
        known = {row["name"] for row in self.plane.registry.index()}
        for number, stage in enumerate(stream.stages):
            if not isinstance(stage, Detect | Crop):
                continue
            where = (*path, "stage", number, stage.kind if isinstance(stage, Crop) else "detect")
            if stage.model not in known:
                raise WrongValue(where, f"there is no model {stage.model!r:.80}; push it first")
            served = self.plane.registry.served.get(stage.model)
            live = served.default if served is not None else None
            if live is not None and live.stored.manifest.ensemble is not None:
                said = f"model {stage.model!r:.80} is an ensemble; give the stream its stages instead"
                raise WrongValue(where, said)

    async def remove(self, name: str) -> None:
        """Stop and forget a stream that a client has added."""
        async with self._lock:
            self.runner(name)
            origin = self._wanted[name].origin
            if origin != _OWN:
                raise errors.InvalidRequest(f"stream {name!r} is defined in {origin}; remove it there and reload")
            await self._drop(name)
            await self._run(self._unlink, name)

    async def switch(self, name: str, *, on: bool) -> StreamRunner:
        """Start or stop a stream, and remember that."""
        async with self._lock:
            runner = self.runner(name)
            self._switched[name] = on
            await self._run(self._store_switched)
            if on:
                runner.start()
            else:
                await runner.stop()
        return runner

    async def restart(self, name: str) -> StreamRunner:
        """Start a stream anew; a file begins again."""
        async with self._lock:
            runner = self.runner(name)
            await runner.stop()
            runner.start()
        return runner

    # --- files ------------------------------------------------------------------------------------------------------

    def _store(self, name: str, table: Mapping[str, Any]) -> None:
        if self._state is not None:
            _write(self._state / "tables" / f"{name}.json", dict(table))

    def _store_switched(self) -> None:
        if self._state is not None:
            _write(self._state / "switched.json", self._switched)

    def _unlink(self, name: str) -> None:
        if self._state is not None:
            (self._state / "tables" / f"{name}.json").unlink(missing_ok=True)
            _write(self._state / "switched.json", self._switched)

    def snapshots(self, name: str) -> list[str]:
        """File names of a stream's snapshots, the newest first."""
        directory = self.runner(name).directory
        if directory is None or not (directory / "snapshots").is_dir():
            return []
        entries = [e for e in os.scandir(directory / "snapshots") if e.name.endswith(".jpg") and e.name[0] != "."]
        return [e.name for e in sorted(entries, key=lambda e: -e.stat().st_mtime)]

    def snapshot(self, name: str, file: str) -> bytes:
        """One of them; NotFound."""
        directory = self.runner(name).directory
        if directory is None or "/" in file or file.startswith(".") or not file.endswith(".jpg"):
            raise errors.NotFound(f"no snapshot {file!r:.80}")
        try:
            return (directory / "snapshots" / file).read_bytes()
        except OSError as error:
            raise errors.NotFound(f"no snapshot {file!r:.80}: {error.strerror}") from error

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _write(file: Path, value: Any) -> None:
    """Whole or not at all, whatever the power does; readable by the daemon only: sources have passwords."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, file)
