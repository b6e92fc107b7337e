"""Model directories on disk: `<repository>/<name>/<version>/model.toml`.

The first repository is writable and belongs to the daemon; the others (the distribution's, the ones embedded in this
package) are only read. A version appears in the writable one by one rename of a complete, synced directory: whatever
the power does, a version is there whole or not at all. Directories that start with a dot are never models.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import AlreadyExists, InvalidModel, NotFound, TooLarge, Unavailable
from ..formats.labels import Labels
from ..formats.labels import parse as parse_labels
from . import manifest as manifests
from .digests import of_file
from .ensemble import TARGET as ENSEMBLE
from .manifest import Manifest
from .storage import storing

#: Staging area inside the writable repository: on the same file system, so that rename is atomic.
STAGING: Final = ".staging"
EMBEDDED: Final = Path(__file__).parent / "defaults"
#: Beside the files of a model that came as a signed bundle: their digests, and the signature of those.
DIGESTS: Final = "bundle.sha256"
SIGNATURE: Final = "bundle.sig"
#: Labels of a model, as text.
MAX_LABELS_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model version on disk, its manifest read, its files not yet verified."""

    path: Path
    manifest: Manifest
    version: str

    @property
    def key(self) -> str:
        """`name/version`."""
        return f"{self.manifest.name}/{self.version}"


class Repository:
    """The search path of model directories. Blocking calls: use them from a thread where it matters."""

    def __init__(self, directories: Sequence[Path], *, max_file_bytes: int = 1 << 30) -> None:
        if not directories:
            raise ValueError("at least one model directory is needed")
        self.directories = tuple(directories)
        self.max_file_bytes = max_file_bytes

    @property
    def writable(self) -> Path:
        """The directory that takes pushed models."""
        return self.directories[0]

    def clean(self) -> None:
        """Throw away what a power cut left in the staging area."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.writable / STAGING)

    def names(self) -> list[str]:
        """Names of all models that have at least one version directory."""
        names: set[str] = set()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                names.update(e.name for e in os.scandir(directory) if e.is_dir() and manifests.NAME.fullmatch(e.name))
        return sorted(n for n in names - manifests.RESERVED if self.versions(n))

    def versions(self, name: str) -> list[str]:
        """Versions of a model, newest first. Earlier directories shadow later ones."""
        manifests.check_name(name)
        versions: set[str] = set()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                versions.update(
                    e.name for e in os.scandir(directory / name) if e.is_dir() and manifests.VERSION.fullmatch(e.name)
                )
        return sorted(versions, key=int, reverse=True)

    def removable(self, name: str, version: str) -> bool:
        """Whether it lies in the writable directory."""
        return (self.writable / name / version).is_dir()

    def find(self, name: str, version: str) -> StoredModel:
        """Read one version's manifest. NotFound, or InvalidModel with the reason."""
        manifests.check_name(name)
        manifests.check_version(version)
        for directory in self.directories:
            path = directory / name / version
            if (path / "model.toml").is_file():
                return read(path, name, version, self.max_file_bytes)
        raise NotFound(f"no model {name!r} version {version} in {', '.join(map(str, self.directories))}")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh private directory on the writable file system; removed at the end unless `commit` moved it away."""
        base = self.writable / STAGING
        try:
            base.mkdir(mode=0o750, parents=True, exist_ok=True)
            path = base / secrets.token_hex(8)
            path.mkdir(mode=0o750)
        except OSError as error:
            raise Unavailable(f"cannot write to the model repository {self.writable}: {error.strerror}") from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def next_version(self, name: str) -> str:
        """One above the highest there is."""
        versions = self.versions(name)
        return str(int(versions[0]) + 1) if versions else "1"

    def commit(self, staged: Path, name: str, version: str) -> Path:
        """Make a staged, complete directory visible as name/version. Syncs everything first. AlreadyExists if taken."""
        target = self.writable / manifests.check_name(name) / manifests.check_version(version)
        with storing(f"model {name!r}"):
            sync_tree(staged)
            target.parent.mkdir(mode=0o750, exist_ok=True)
            try:
                os.rename(staged, target)  # a directory is only ever renamed over an empty one
            except OSError as error:
                if target.exists():
                    raise AlreadyExists(
                        f"model {name!r} has a version {version} already; push it under another version"
                    ) from error
                with contextlib.suppress(OSError):
                    target.parent.rmdir()  # made for nothing, unless it has other versions
                raise
            for directory in (target.parent, self.writable):
                _sync(directory)
        return target

    def remove(self, name: str, version: str) -> None:
        """Delete a version from the writable directory: out of sight by one rename, then emptied."""
        path = self.writable / manifests.check_name(name) / manifests.check_version(version)
        if not path.is_dir():
            versions = self.versions(name)
            if version in versions:
                raise NotFound(
                    f"model {name!r} version {version} comes with the system (it is not in {self.writable}) and "
                    f"cannot be deleted; edgeai unload {name} stops serving it"
                )
            there = f"there are: {', '.join(versions)}" if versions else "edgeai models lists what there is"
            raise NotFound(f"model {name!r} has no version {version}; {there}")
        with self.staging() as removed, storing(f"the removal of model {name!r}"):
            os.rename(path, removed / "gone")
            _sync(path.parent)


def read(path: Path, name: str, version: str, max_file_bytes: int) -> StoredModel:
    """Read a model directory's manifest and check that each file it names is a regular file inside of it."""
    data = (
        (path / "model.toml").read_bytes()
        if (path / "model.toml").stat().st_size <= manifests.MAX_BYTES
        else b" " * (manifests.MAX_BYTES + 1)
    )
    stored = StoredModel(path, manifests.parse(data, name), version)
    for file in stored.manifest.files:
        fd = open_inside(path, file)
        try:
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if size > max_file_bytes:
            raise TooLarge(f"{path / file} has {size} bytes, more than the limit of {max_file_bytes}")
    return stored


def open_inside(directory: Path, file: str) -> int:
    """Open a regular file below `directory` without following any symbolic link. InvalidModel if there is none."""
    manifests.check_path(file, str(directory))
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidModel(f"{directory}: {error.strerror}") from error
    try:
        for part in file.split("/"):
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=fd)
            os.close(fd)
            fd = inner
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidModel(f"{directory / file} is not a regular file")
    except OSError as error:
        os.close(fd)
        raise InvalidModel(f"{directory / file}: {error.strerror} (symbolic links are not followed)") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_inside(directory: Path, file: str, limit: int) -> bytes:
    """Content of a small file below `directory`; TooLarge above `limit` bytes."""
    with open(open_inside(directory, file), "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"{directory / file} is larger than {limit} bytes")
    return data


def verify(stored: StoredModel, target: str) -> Path:
    """Path of the artifact for `target` after its digest was checked; an ensemble has its manifest only.

    NotFound / InvalidModel.
    """
    if target == ENSEMBLE and stored.manifest.ensemble is not None:
        return stored.path / "model.toml"
    for artifact in stored.manifest.artifacts:
        if artifact.target == target:
            with open(open_inside(stored.path, artifact.file), "rb") as stream:
                digest = of_file(stream)
            if digest != artifact.sha256:
                raise InvalidModel(
                    f"{stored.path / artifact.file}: sha256 is {digest}, "
                    f"the manifest says {artifact.sha256}; the file is damaged or was replaced"
                )
            return stored.path / artifact.file
    raise NotFound(f"model {stored.key} has no artifact for {target}")


def labels(stored: StoredModel, classes: int | None = None) -> Labels:
    """The model's labels; `classes` = the scores that it gives, where that is known."""
    if not stored.manifest.labels_file:
        return Labels()
    return parse_labels(read_inside(stored.path, stored.manifest.labels_file, MAX_LABELS_BYTES), classes)


def label_file(path: Path, classes: int | None) -> Labels:
    """The labels in a file that `labels` has checked before: for the process that names what pictures show."""
    return parse_labels(path.read_bytes(), classes)


def sync_tree(path: Path) -> None:
    """fsync every file and directory below `path`, and it."""
    for directory, _, files in os.walk(path):
        for file in files:
            _sync(Path(directory) / file)
        _sync(Path(directory))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
