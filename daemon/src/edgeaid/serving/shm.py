"""Triton's named system shared memory: off unless enabled. Prefer the fast socket's sealed memfds.

A region is never mapped: it is read and written with pread and pwrite, so that a client that truncates it gets an error
and the daemon no SIGBUS. The caller of register must own the region's file.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import SharedMemory
from ..errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unavailable,
    Unsupported,
)
from .access import Peer, Role
from .holdings import Holdings, Kind
from .settings import integral

DIRECTORY = Path("/dev/shm")  # noqa: S108  where POSIX shared memory lives on Linux


@dataclass(frozen=True, slots=True)
class Region:
    """A tensor in a registered shared-memory region."""

    name: str
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Registered:
    fd: int
    key: str
    offset: int
    size: int


def _close(fd: int) -> None:
    """Close in a thread: its owner may have removed the file, and to give back gigabytes takes its time."""
    asyncio.get_running_loop().run_in_executor(None, os.close, fd)


class Regions:
    """Registered regions; each user has names of its own, so that no user can take another's."""

    def __init__(self, config: SharedMemory, holdings: Holdings) -> None:
        self.config = config
        self._holdings = holdings
        self._regions: dict[tuple[int, str], _Registered] = {}

    def _check_enabled(self) -> None:
        if not self.config.enabled:
            raise Unsupported(
                "system shared memory is switched off; set enabled = true in [shared_memory], or use the fast socket"
            )

    def register(self, name: str, body: dict[str, Any], peer: Peer) -> None:
        """Open a region; AlreadyExists, InvalidRequest, PermissionDenied, NotFound."""
        self._check_enabled()
        key, offset, size = body.get("key"), integral(body.get("offset", 0)), integral(body.get("byte_size"))
        numbers = [n for n in (offset, size) if isinstance(n, int) and not isinstance(n, bool) and n >= 0]
        if not isinstance(key, str) or len(numbers) != 2 or not size:
            raise InvalidRequest(
                f"region {name!r}: 'key' must be a text, 'offset' and 'byte_size' whole numbers, byte_size above 0"
            )
        if (peer.uid, name) in self._regions:
            raise AlreadyExists(f"shared memory region {name!r} is registered already; unregister it first")
        if sum(uid == peer.uid for uid, _ in self._regions) >= self.config.max_regions:
            raise TooLarge(f"user id {peer.uid} has registered {self.config.max_regions} regions, the limit")
        plain = key.removeprefix("/")
        if not plain or "/" in plain or plain in (".", "..") or "\0" in plain:
            raise InvalidRequest(f"region {name!r}: key {key!r} is not the name of a POSIX shared memory object")
        try:
            fd = os.open(DIRECTORY / plain, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise NotFound(f"region {name!r}: cannot open {key!r}: {error.strerror}") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != peer.uid:
            _close(fd)
            raise PermissionDenied(f"region {name!r}: {key!r} does not belong to user id {peer.uid}")
        if size > self.config.max_bytes:
            _close(fd)
            raise TooLarge(f"region {name!r} has {size} bytes, the limit is {self.config.max_bytes}")
        if offset + size > status.st_size:
            _close(fd)
            raise InvalidRequest(
                f"region {name!r}: offset {offset} + byte_size {size} is beyond the end of {key!r} "
                f"({status.st_size} bytes)"
            )
        try:
            # By size, whatever is in it now: an answer written where nothing was makes a page, and on our account.
            self._holdings.take(peer.uid, Kind.REGIONS, size)
        except Unavailable:
            _close(fd)
            raise
        self._regions[peer.uid, name] = _Registered(fd, key, offset, size)

    def _mine(self, peer: Peer, name: str) -> list[tuple[int, str]]:
        """What a peer may see and release, by name if one is given: its own regions, with the role control all."""
        return sorted(
            (uid, known)
            for uid, known in self._regions
            if (uid == peer.uid or peer.role >= Role.CONTROL) and name in ("", known)
        )

    def unregister(self, peer: Peer, name: str = "") -> None:
        """Close one region, or all of the peer's. PermissionDenied for one of another user."""
        mine = self._mine(peer, name)
        if name and not mine and any(name == known for _, known in self._regions):
            raise PermissionDenied(f"shared memory region {name!r} was registered by another user")
        for known in mine:
            region = self._regions.pop(known)
            self._holdings.give(known[0], Kind.REGIONS, region.size)
            _close(region.fd)

    def close(self) -> None:
        """Close all."""
        for region in self._regions.values():
            os.close(region.fd)
        self._regions.clear()

    def status(self, peer: Peer, name: str = "") -> list[dict[str, Any]]:
        """What the peer has registered; NotFound for an unknown name."""
        mine = self._mine(peer, name)
        if name and not mine:
            raise NotFound(f"shared memory region {name!r} is not registered")
        regions = [(known, self._regions[uid, known]) for uid, known in mine]
        return [{"name": n, "key": r.key, "offset": r.offset, "byte_size": r.size} for n, r in regions]

    def _find(self, region: Region, size: int, peer: Peer) -> tuple[int, int]:
        self._check_enabled()
        registered = self._regions.get((peer.uid, region.name))
        if registered is None:
            raise NotFound(f"shared memory region {region.name!r} is not registered")
        if region.offset + size > registered.size:
            raise InvalidRequest(
                f"shared memory region {region.name!r}: offset {region.offset} + {size} bytes "
                f"is beyond its {registered.size} bytes"
            )
        return registered.fd, registered.offset + region.offset

    def read(self, region: Region, into: memoryview, peer: Peer) -> None:
        """Fill a tensor from a region."""
        fd, offset = self._find(region, len(into), peer)
        if os.preadv(fd, [into], offset) != len(into):
            raise InvalidRequest(f"shared memory region {region.name!r} was cut short by its owner")

    def write(self, region: Region, data: memoryview, peer: Peer) -> None:
        """Write a tensor into a region."""
        fd, offset = self._find(region, len(data), peer)
        if os.fstat(fd).st_size < offset + len(data):
            raise InvalidRequest(f"shared memory region {region.name!r} was cut short by its owner")
        os.pwrite(fd, data, offset)
