"""Versions that a rollback has pinned, kept across restarts."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class Pins(dict[str, str]):
    """Model name -> version. In memory only where there is no state directory."""

    def __init__(self, state_directory: str) -> None:
        super().__init__()
        directory = state_directory or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        self._file = Path(directory) / "pins.json" if directory else None

    def read(self) -> None:
        """Take what is stored; a file that cannot be read pins nothing, and is reported."""
        if self._file is None or not self._file.exists():
            return
        try:
            self.update({str(k): str(v) for k, v in json.loads(self._file.read_text()).items()})
        except (OSError, ValueError, AttributeError) as error:
            log.error("%s cannot be read (%s): versions are not pinned", self._file, error)

    def write(self) -> None:
        """Store them: whole or not at all, whatever the power does."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        with open(fresh, "w") as stream:
            json.dump(self, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, self._file)
