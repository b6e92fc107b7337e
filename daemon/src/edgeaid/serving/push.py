"""Models that arrive over the socket: staged, checked, self-tested, and only then visible.

Order: stream to a staging directory on the repository's file system, unpack, check, load and self-test from there,
sync, rename into place, serve. Whatever goes wrong before the rename leaves nothing; the rename is atomic.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import errors
from ..models import manifest as manifests
from ..models import repository
from ..models.digests import of_file, sha256
from ..models.manifest import Manifest
from ..models.storage import storing
from ..models.trust import check_serial
from .registry import Registry

log = logging.getLogger(__name__)


async def receive(chunks: AsyncIterator[bytes], file: Path, limit: int, expected: int = 0) -> str:
    """Stream a body to a file; returns its sha256. TooLarge; Unavailable when the disk is full.

    `expected`: the bytes that it was said to have; 0 = unknown.
    """
    digest = sha256(expected)
    total = 0
    loop = asyncio.get_running_loop()
    with storing("the upload"), open(file, "wb") as stream:  # noqa: ASYNC230  opening is quick; a thread writes

        def store(chunk: bytes) -> None:
            digest.update(chunk)
            stream.write(chunk)

        async for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise errors.TooLarge(f"the upload is larger than {limit} bytes")
            await loop.run_in_executor(None, store, chunk)  # a slow card must not stall requests
    if total == 0:
        raise errors.InvalidModel("the upload is empty; download or export the file again")
    return digest.hexdigest()


async def accept(
    registry: Registry,
    name: str,
    version: str,
    upload_or_directory: Path,
    staged: Path,
    *,
    digest: str = "",
    unless_same: bool = False,
    allow_older: bool = False,
) -> dict[str, Any]:
    """Check, load, self-test and commit a staged model; serve it. `upload_or_directory` is gone afterwards.

    `digest`: SHA-256 of the upload's bytes as they came; "" = unknown.
    `unless_same`: what is stored already as the newest version is served as it is.
    `allow_older`: take it also when its `serial` is below that of a version that is here.
    """
    limits = registry.config.limits
    run = asyncio.get_running_loop().run_in_executor
    notes: tuple[str, ...] = ()
    if upload_or_directory.is_file():
        notes = await run(None, _unpack, upload_or_directory, staged, name, limits.bundle_bytes, digest)
    async with registry.changing(name):
        if unless_same and (same := await run(None, _same_as_newest, registry, name, staged)):
            return await _serve_stored(registry, name, same)
        version = version or await run(None, registry.repository.next_version, name)
        manifests.check_version(version)
        if version in await run(None, registry.repository.versions, name):
            raise errors.AlreadyExists(f"model {name!r} has a version {version} already; push it under another version")
        stored = await run(None, repository.read, staged, name, version, limits.bundle_bytes)
        await run(None, registry.trust.check, stored)
        if not allow_older:
            check_serial(stored.manifest, await run(None, _others, registry, name))
        live = await registry.bring_up(stored)
        for note in notes:
            log.warning("model %s/%s: %s", name, version, note)
        try:
            path = await run(None, registry.repository.commit, staged, name, version)
        except BaseException:
            await registry.retire(live)
            raise
        live.stored = replace(stored, path=path)
        try:
            serving = await registry.add_version(live)
        except BaseException:  # neither served nor stored
            await registry.retire(live)
            await run(None, registry.repository.remove, name, version)
            raise
        devices = [d.id for d in live.devices]
    return {
        "name": name,
        "version": version,
        "devices": devices,
        "serving": serving,
        "notes": [*notes, *live.notes],
    }


def _unpack(upload: Path, staged: Path, name: str, limit: int, digest: str) -> tuple[str, ...]:
    from ..models import bare  # much that only pushes need: other formats, the catalogue

    with storing(f"model {name!r}"):
        return bare.unpack(upload, staged, name, limit, digest)


def _others(registry: Registry, name: str) -> list[Manifest]:
    """Manifests of the versions that are stored already; one that cannot be read says nothing. Blocking."""
    manifests_here = []
    for version in registry.repository.versions(name):
        with contextlib.suppress(errors.EdgeaiError, OSError):
            manifests_here.append(registry.repository.find(name, version).manifest)
    return manifests_here


def _same_as_newest(registry: Registry, name: str, staged: Path) -> str:
    """The newest stored version when it is the staged one byte for byte, else "". Blocking."""
    versions = registry.repository.versions(name)
    if not versions:
        return ""
    newest = max(versions, key=int)
    stored = registry.repository.find(name, newest)
    try:
        new = repository.read(staged, name, newest, registry.config.limits.bundle_bytes)
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
        return of_file(stream)


async def _serve_stored(registry: Registry, name: str, version: str) -> dict[str, Any]:
    served = registry.served.get(name)
    live = served.versions.get(version) if served is not None else None
    if served is None or live is None or served.default is not live:
        await registry.pins.store(name, None)
        await registry.load_locked(name)
        served = registry.served[name]
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


async def from_files(registry: Registry, name: str, files: dict[str, bytes | bytearray]) -> None:
    """`file:<version>/<name>` parameters of a load request: one model version, given inline."""
    manifests.check_name(name)
    versions = {path.partition("/")[0] for path in files}
    if len(versions) != 1:
        raise errors.InvalidRequest("failed to load: the 'file:' parameters must be of one version")
    version = manifests.check_version(versions.pop())
    with registry.repository.staging() as base:
        staged = base / "model"
        staged.mkdir()
        contents = {manifests.check_path(path.partition("/")[2], path): data for path, data in files.items()}
        run = asyncio.get_running_loop().run_in_executor
        if "model.toml" not in contents and len(contents) == 1:
            upload = base / "upload"
            await run(None, _write, base, {"upload": next(iter(contents.values()))})
            await accept(registry, name, version, upload, staged)
            return
        await run(None, _write, staged, contents)
        await accept(registry, name, version, staged, staged)


def _write(directory: Path, contents: dict[str, bytes | bytearray]) -> None:
    with storing("the model"):
        for path, data in contents.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
