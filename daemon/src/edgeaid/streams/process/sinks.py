"""What happens with events beside publishing: a journal and snapshots on disk, calls of webhooks. A thread of its own.

Nothing here may hold up a frame: what does not fit into the queue, onto the disk or through the network is counted.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ..memory import Count, Shared
from ..sources import redacted
from ..table import Stream, Webhook

log = logging.getLogger(__name__)

QUEUE: Final = 256
#: Waits before a webhook is tried again; then its event is given up.
RETRIES: Final = (0.5, 2.0, 8.0)
#: A full disk or an address without answer is logged once in so many seconds.
QUIET_SECONDS: Final = 60.0
MEBIBYTE: Final = 1 << 20


class Files:
    """The journal and the snapshots of one stream, each within its size."""

    def __init__(self, stream: Stream, directory: Path) -> None:
        self.journal = directory / "events.jsonl"
        self.snapshots = directory / "snapshots"
        self._journal_bytes = int(stream.keep.journal_mb * MEBIBYTE)
        self._snapshot_bytes = int(stream.keep.snapshots_mb * MEBIBYTE)
        self._kept = -1

    def write(self, event: dict[str, Any]) -> None:
        """Append a line; at half of the size a new file is begun, and the last one is the older half."""
        if not self._journal_bytes:
            return
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(event, separators=(",", ":")) + "\n").encode()
        with open(self.journal, "ab") as stream:
            start = stream.tell()
            try:
                stream.write(line)
                stream.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self.journal, start)  # a line that is cut off would damage the next one
                raise
            size = stream.tell()
        if size > self._journal_bytes // 2:
            os.replace(self.journal, self.journal.with_suffix(".1.jsonl"))

    def save(self, name: str, data: bytes) -> None:
        """Store a snapshot: whole or not at all; the oldest ones make room."""
        self.snapshots.mkdir(parents=True, exist_ok=True)
        self._make_room(len(data))
        fresh = self.snapshots / f".{name}.new"
        try:
            fresh.write_bytes(data)
            os.replace(fresh, self.snapshots / name)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        self._kept += len(data)

    def _make_room(self, wanted: int) -> None:
        if self._kept >= 0 and self._kept + wanted <= self._snapshot_bytes:
            return
        entries = sorted((e.stat().st_mtime, e.stat().st_size, e.path) for e in os.scandir(self.snapshots))
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total + wanted <= self._snapshot_bytes * 0.9:
                break
            os.unlink(path)
            total -= size
        self._kept = total


class Sinks(threading.Thread):
    """Takes events, in order, and brings them where the table says."""

    def __init__(self, stream: Stream, shared: Shared, directory: Path | None) -> None:
        super().__init__(name="sinks", daemon=True)
        self.stream = stream
        self._shared = shared
        self._files = Files(stream, directory) if directory is not None else None
        self._queue: queue.Queue[tuple[dict[str, Any], str, bytes] | None] = queue.Queue(QUEUE)
        self._hooks = [_Hook(w, shared) for w in stream.webhooks]
        self._told = 0.0

    def put(self, event: dict[str, Any], snapshot: str = "", data: bytes = b"") -> None:
        """An event, with the name and bytes of its snapshot where it has one."""
        try:
            self._queue.put_nowait((event, snapshot, data))
        except queue.Full:
            self._shared.add(Count.LOST_FILES)
        for hook in self._hooks:
            hook.put(event)

    def finish(self, timeout: float) -> None:
        """Bring away what is there, as far as it goes in time."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
            self.join(timeout)
        for hook in self._hooks:
            hook.finish()

    def run(self) -> None:
        """Until `finish`."""
        for hook in self._hooks:
            hook.start()
        while (item := self._queue.get()) is not None:
            event, snapshot, data = item
            if self._files is None:
                continue
            try:
                if snapshot:
                    self._files.save(snapshot, data)
                self._files.write(event)
            except OSError as error:
                self._shared.add(Count.LOST_FILES)
                self._complain(f"cannot write events: {error.strerror}")

    def _complain(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told > QUIET_SECONDS or not self._told:
            self._told = now
            log.error("stream %s: %s", self.stream.name, text)


class _Hook(threading.Thread):
    """One address. Its events wait for it in a queue of their own."""

    def __init__(self, webhook: Webhook, shared: Shared) -> None:
        super().__init__(name="webhook", daemon=True)
        self.webhook = webhook
        self._url, login = _without_login(webhook.url)
        self._headers = {"Content-Type": "application/json", "User-Agent": "edgeaid", **login}
        self._shared = shared
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE)
        self._halt = threading.Event()
        self._told = 0.0

    def put(self, event: dict[str, Any]) -> None:
        """An event for it; the oldest makes room."""
        if self.webhook.types and event["type"] not in self.webhook.types:
            return
        while True:
            try:
                self._queue.put_nowait(event)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._shared.add(Count.LOST_WEBHOOKS)

    def finish(self) -> None:
        """No more tries."""
        self._halt.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def run(self) -> None:
        """Until `finish`."""
        while (event := self._queue.get()) is not None:
            if not self._call(event):
                self._shared.add(Count.LOST_WEBHOOKS)

    def _call(self, event: dict[str, Any]) -> bool:
        body = json.dumps(event, separators=(",", ":")).encode()
        for pause in (*RETRIES, 0.0):
            try:
                request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310  the table allows only http
                with urllib.request.urlopen(request, timeout=self.webhook.timeout_s):  # noqa: S310  the same
                    return True
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 429):
                    self._complain(f"answers with status {error.code}")
                    return False  # it will not like it better the next time
                reason = f"answers with status {error.code}"
            except (OSError, ValueError) as error:
                reason = f"cannot be reached: {redacted(str(getattr(error, 'reason', error)))}"
            except http.client.HTTPException as error:
                reason = f"answers with something that is not HTTP: {type(error).__name__}"
            if pause and self._halt.wait(pause):
                return False
        self._complain(reason)
        return False

    def _complain(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told > QUIET_SECONDS or not self._told:
            self._told = now
            log.error("webhook %s %s", redacted(self.webhook.url), text)


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """An address without its user and password, and the header that says them."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    told = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), told
