"""Models that arrive over the socket: staged, checked, self-tested, and only then visible.

Order: stream to a staging directory on the repository's file system, unpack, check, load and self-test from there,
sync, rename into place, serve. Whatever goes wrong before the rename leaves nothing; the rename is atomic.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import errors
from ..models import bare, repository
from ..models import manifest as manifests
from .plane import Plane
from .registry import Served

log = logging.getLogger(__name__)


async def receive(chunks: AsyncIterator[bytes], file: Path, limit: int) -> str:
    """Stream a body to a file; returns its sha256. TooLarge; Unavailable when the disk is full."""
    digest = hashlib.sha256()
    total = 0
    loop = asyncio.get_running_loop()
    try:
        with open(file, "wb") as stream:  # noqa: ASYNC230  opening is quick; writing is done in a thread
            async for chunk in chunks:
                total += len(chunk)
                if total > limit:
                    raise errors.TooLarge(f"the upload is larger than {limit} bytes")
                digest.update(chunk)
                await loop.run_in_executor(None, stream.write, chunk)  # a slow card must not stall requests
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise errors.Unavailable(
                f"the upload cannot be stored: {error.strerror}; free some space and push again"
            ) from error
        raise
    if total == 0:
        raise errors.InvalidRequest("the upload is empty")
    return digest.hexdigest()


async def accept(
    plane: Plane,
    name: str,
    version: str,
    upload_or_directory: Path,
    staged: Path,
    *,
    unless_same: bool = False,
) -> dict[str, Any]:
    """Check, load, self-test and commit a staged model; serve it. `upload_or_directory` is gone afterwards.

    `unless_same`: what is stored already as the newest version is served as it is.
    """
    limits = plane.config.limits
    loop = asyncio.get_running_loop()
    notes: tuple[str, ...] = ()
    if upload_or_directory.is_file():
        notes = await loop.run_in_executor(None, bare.unpack, upload_or_directory, staged, name, limits.bundle_bytes)
    if unless_same and (same := await loop.run_in_executor(None, _same_as_newest, plane, name, staged)):
        return await _serve_stored(plane, name, same)
    version = version or await loop.run_in_executor(None, plane.repository.next_version, name)
    manifests.check_version(version)
    if version in plane.repository.versions(name):
        raise errors.AlreadyExists(f"model {name!r} has a version {version} already; push it under another version")
    found = await loop.run_in_executor(None, repository.read, staged, name, version, limits.bundle_bytes)
    live = await plane.bring_up(found)
    for note in notes:
        log.warning("model %s/%s: %s", name, version, note)
    try:
        path = await loop.run_in_executor(None, plane.repository.commit, staged, name, version)
    except BaseException:
        await plane.retire(live)
        raise
    live.found = replace(found, path=path)
    served = plane.served.setdefault(name, Served())
    async with served.lock:
        keep = served.versions if plane.config.models.versions == "all" else {}
        newest = max((int(v) for v in served.versions), default=0)
        if keep or int(version) > newest:
            await plane.unpin(name)
            plane.swap(name, served, {version: live})
        else:
            await plane.retire(live)
    return {
        "name": name,
        "version": version,
        "devices": [d.id for d in live.devices],
        "serving": served.default is live,
        "notes": [*notes, *live.notes],
    }


def _same_as_newest(plane: Plane, name: str, staged: Path) -> str:
    """The newest stored version when it is the staged one byte for byte, else "". Blocking."""
    versions = plane.repository.versions(name)
    if not versions:
        return ""
    newest = max(versions, key=int)
    stored = plane.repository.find(name, newest)
    try:
        new = repository.read(staged, name, newest, plane.config.limits.bundle_bytes)
    except errors.EdgeaiError:
        return ""  # it is refused with its reason in a moment
    if new.manifest != stored.manifest:
        return ""
    # The manifests are equal, so the artifacts' digests are; what they leave open is compared.
    files = ("model.toml", *new.manifest.files)
    artifacts = {a.file for a in new.manifest.artifacts}
    same = all(_digest(new.path / f) == _digest(stored.path / f) for f in files if f not in artifacts)
    return newest if same else ""


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


async def _serve_stored(plane: Plane, name: str, version: str) -> dict[str, Any]:
    served = plane.served.get(name)
    live = served.versions.get(version) if served is not None else None
    if served is None or live is None or served.default is not live:
        await plane.unpin(name)
        await plane.load(name)
        served = plane.served[name]
        live = served.default
    if live is None:
        raise errors.Unavailable(f"model {name!r} version {version} is stored already but does not serve")
    return {
        "name": name,
        "version": live.version,
        "devices": [d.id for d in live.devices],
        "serving": True,
        "unchanged": True,
    }


async def from_files(plane: Plane, name: str, files: dict[str, bytes]) -> None:
    """`file:<version>/<name>` parameters of a load request: one model version, given inline."""
    manifests.check_name(name)
    versions = {path.partition("/")[0] for path in files}
    if len(versions) != 1:
        raise errors.InvalidRequest("failed to load: the 'file:' parameters must be of one version")
    version = manifests.check_version(versions.pop())
    with plane.repository.staging() as base:
        staged = base / "model"
        staged.mkdir()
        contents = {manifests.check_path(path.partition("/")[2], path): data for path, data in files.items()}
        if "model.toml" not in contents and len(contents) == 1:
            upload = base / "upload"
            upload.write_bytes(next(iter(contents.values())))
            await accept(plane, name, version, upload, staged)
            return
        for path, data in contents.items():
            target = staged / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        await accept(plane, name, version, staged, staged)
