"""Versions that a rollback has pinned, kept across restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from pathlib import Path

from ..models.storage import storing

log = logging.getLogger(__name__)


class Pins(dict[str, str]):
    """Model name -> version. In memory only where there is no state directory."""

    def __init__(self, state_directory: str) -> None:
        super().__init__()
        directory = state_directory or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        self._file = Path(directory) / "pins.json" if directory else None
        self._lock = asyncio.Lock()

    def read(self) -> None:
        """Take what is stored; a file that cannot be read pins nothing, and is reported."""
        if self._file is None or not self._file.exists():
            return
        try:
            self.update({str(k): str(v) for k, v in json.loads(self._file.read_text()).items()})
        except (OSError, ValueError, AttributeError) as error:
            log.error("%s cannot be read (%s): versions are not pinned", self._file, error)

    async def store(self, name: str, version: str | None) -> None:
        """Pin a model to a version; None forgets its pin. Unavailable when the disk is full; then nothing changed."""
        async with self._lock:
            fresh = {k: v for k, v in self.items() if k != name}
            if version is not None:
                fresh[name] = version
            if fresh == self:
                return
            if self._file is not None:
                await asyncio.get_running_loop().run_in_executor(None, _write, self._file, json.dumps(fresh))
            self.clear()
            self.update(fresh)


def _write(file: Path, text: str) -> None:
    """Replace a file: whole or not at all, whatever the power does."""
    with storing("the pin of a version"):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        fresh = Path(name)
        try:
            with open(descriptor, "w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
