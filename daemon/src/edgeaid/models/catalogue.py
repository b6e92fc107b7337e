"""Public models by name: where they are, what they must hash to, how to use them. `edgeai pull` on the host or device.

A file is only ever used after its digest was checked, so a mirror needs no trust: `EDGEAI_MODEL_MIRROR` names a
directory or an http(s) prefix that holds the files under their paths in the source repository (or below `owner/name/`).
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO, Any, Final, cast

from ..errors import InvalidModel, NotFound, TooLarge, Unavailable
from . import manifest as manifests
from .digests import sha1
from .repository import Repository

FILE: Final = Path(__file__).with_name("catalogue.toml")
MIRROR_VARIABLE: Final = "EDGEAI_MODEL_MIRROR"
#: For files whose size the catalogue does not know; the largest model of the Coral collection has 44 MiB.
MAX_BYTES: Final = 64 << 20
#: Seconds without a byte after which a download is given up.
TIMEOUT: Final = 30.0
_CHUNK: Final = 1 << 16

#: Called with the bytes so far and the bytes expected, of all files together (0 = unknown).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source repository."""

    #: Inside the source repository.
    path: str
    #: Lower-case hexadecimal; "" where only the blob id is known.
    sha256: str = ""
    #: The file's git blob id: SHA-1 of "blob <size>\\0" and the content.
    git: str = ""
    #: Exact size; None = unknown.
    bytes: int | None = None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue."""

    name: str
    task: str
    description: str
    #: SPDX identifier.
    license: str
    #: "owner/name" on GitHub.
    repository: str
    #: Full id: what is fetched never changes under us.
    commit: str
    #: Target -> file, in fail-over order.
    artifacts: Mapping[str, File]
    labels: File | None = None
    #: The manifest's [input] and [output] tables; None = the model has none.
    input: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None
    #: This project's tests have run the cpu artifact.
    tested: bool = False

    def url(self, file: File) -> str:
        """Where the file is published."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{file.path}"

    def files(self, targets: Collection[str] | None = None) -> tuple[File, ...]:
        """Everything that has to be fetched, for these targets (None = all)."""
        wanted = [file for target, file in self.artifacts.items() if targets is None or target in targets]
        return (*wanted, *([self.labels] if self.labels else []))

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that it has an artifact for, in fail-over order."""
        return tuple(self.artifacts)

    def size(self, targets: Collection[str] | None = None) -> int:
        """Bytes of `files`; 0 when one of them is unknown."""
        sizes = [file.bytes for file in self.files(targets)]
        return sum(size or 0 for size in sizes) if all(sizes) else 0


def load(file: Path = FILE) -> dict[str, Entry]:
    """The catalogue, by name, in its own order. Raises InvalidModel when the file is not a catalogue."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        if table.get("schema") != 1:
            raise InvalidModel(f"{file}: schema is {table.get('schema')!r}, this edgeaid reads schema 1")
        entries = [_entry(model, table["source"][model["source"]]) for model in table["model"]]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModel(f"{file}: not a catalogue: {error}") from error
    return {entry.name: entry for entry in entries}


def _entry(model: Mapping[str, Any], source: Mapping[str, Any]) -> Entry:
    return Entry(
        name=manifests.check_name(model["name"]),
        task=model["task"],
        description=model["description"],
        license=model.get("license", source["license"]),
        repository=source["repository"],
        commit=source["commit"],
        artifacts=MappingProxyType({target: _file(file) for target, file in model["artifacts"].items()}),
        labels=_file(model["labels"]) if "labels" in model else None,
        input=model.get("input"),
        output=model.get("output"),
        tested=model.get("tested", False),
    )


def _file(table: Mapping[str, Any]) -> File:
    file = File(**table)
    manifests.check_path(file.path, "catalogue path")
    if bool(file.sha256) == bool(file.git):
        raise InvalidModel(f"catalogue: {file.path} needs either sha256 or git")
    return file


def pull(
    name: str,
    destination: Path,
    *,
    mirror: str | None = None,
    targets: Collection[str] | None = None,
    progress: Progress | None = None,
    catalogue: Mapping[str, Entry] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fetch a model into `destination`, a model repository, as its next version; returns the new version's directory.

    `mirror` defaults to $EDGEAI_MODEL_MIRROR, and that to the public address. `targets` limits what is fetched (None =
    everything). A mirror may lack the labels, which `say` is told then. The version appears by one rename, complete and
    synced, or not at all.
    Raises NotFound (name, or a file that the mirror lacks), Unavailable (network, disk), InvalidModel (wrong digest).
    """
    entries = load() if catalogue is None else catalogue
    entry = entries.get(name)
    if entry is None:
        raise NotFound(f"no model {name!r} in the catalogue; there are: {', '.join(entries)}")
    if not any(targets is None or target in targets for target in entry.artifacts):
        raise NotFound(
            f"model {name!r} has no artifact for {', '.join(targets or ())}, only for {', '.join(entry.artifacts)}"
        )
    mirror = os.environ.get(MIRROR_VARIABLE) if mirror is None else mirror
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot write to {destination}: {error.strerror}") from error
    repository = Repository([destination])
    with repository.staging() as staged:
        try:
            digests: dict[File, str] = {}
            done, total = 0, entry.size(targets)
            for file in entry.files(targets):
                path = staged / file.name
                try:
                    digests[file] = _fetch(entry, file, path, mirror, _step(progress, done, total))
                except NotFound as error:
                    if file is not entry.labels or not mirror:
                        raise
                    path.unlink(missing_ok=True)
                    say(f"{error}: classes have numbers instead of names")
                    continue
                done += path.stat().st_size
            text = manifest(entry, digests, labels=entry.labels in digests)
            manifests.parse(text.encode(), entry.name)
            (staged / "model.toml").write_text(text, encoding="utf-8")
        except OSError as error:
            raise Unavailable(f"cannot store model {name!r} in {destination}: {error.strerror or error}") from error
        return repository.commit(staged, name, repository.next_version(name))


def of_digest(sha256: str, data: bytes) -> tuple[Entry, File] | None:
    """The entry whose artifact these bytes are, None when no entry has them. `sha256` = their digest."""
    artifacts = [(entry, file) for entry in load().values() for file in entry.artifacts.values()]
    for entry, file in artifacts:
        if file.sha256 == sha256:
            return entry, file
    named = [(entry, file) for entry, file in artifacts if file.git and file.bytes in (None, len(data))]
    if not named:
        return None
    digest = sha1(len(data))
    digest.update(b"blob %d\0" % len(data))
    digest.update(data)
    blob = digest.hexdigest()
    return next(((entry, file) for entry, file in named if file.git == blob), None)


def manifest(entry: Entry, digests: Mapping[File, str], *, name: str = "", labels: bool = True) -> str:
    """The text of `model.toml` for the files that are there (file -> sha256); `labels` = the label file is, too."""
    lines = [
        "schema = 1",
        f"name = {_toml(name or entry.name)}",
        f"task = {_toml(entry.task)}",
        f"description = {_toml(entry.description)}",
        f"license = {_toml(entry.license)}",
        f"source = {_toml(f'https://github.com/{entry.repository} at {entry.commit}')}",
    ]
    for target, file in entry.artifacts.items():
        if file in digests:
            lines += ["", f"[artifacts.{target}]", f"file = {_toml(file.name)}", f"sha256 = {_toml(digests[file])}"]
    if entry.labels and labels:
        lines += ["", "[labels]", f"file = {_toml(entry.labels.name)}"]
    for title, table in (("input", entry.input), ("output", entry.output)):
        if table is not None:
            lines += ["", f"[{title}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A text, number, true/false or list of them; JSON's spelling of these is TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def _step(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    """Report bytes of one file as bytes of all; `before` were those of the files already there."""
    return lambda done: progress(before + done, total) if progress else None


def _fetch(entry: Entry, file: File, target: Path, mirror: str | None, step: Callable[[int], None]) -> str:
    """Stream one file to `target`; returns its SHA-256 after the catalogue's digest was found right."""
    limit = MAX_BYTES if file.bytes is None else file.bytes
    sha256, done = hashlib.sha256(), 0
    with target.open("xb") as out:
        for chunk in _chunks(entry, file, mirror):
            done += len(chunk)
            if done > limit:
                raise TooLarge(f"{file.path} has more than the {limit} bytes that the catalogue allows; not kept")
            sha256.update(chunk)
            out.write(chunk)
            step(done)
    if file.bytes is not None and done < file.bytes:
        raise Unavailable(f"{file.path} broke off after {done} of {file.bytes} bytes; try again")
    digest, expected = sha256.hexdigest(), file.sha256
    if file.git:
        digest, expected = _blob_id(target, done), file.git
    if digest != expected:
        raise InvalidModel(f"{file.path} has digest {digest}, the catalogue {expected}; not kept. Check the mirror")
    return sha256.hexdigest()


def _blob_id(path: Path, size: int) -> str:
    # Git's object id. SHA-1 does not resist collisions, but an attacker would need a second preimage of a fixed one.
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(entry: Entry, file: File, mirror: str | None) -> Iterator[bytes]:
    if mirror and not mirror.startswith(("http://", "https://")):
        yield from _from_directory(entry, file, Path(mirror.removeprefix("file://")))
        return
    places = [entry.url(file)]
    if mirror:
        places = [f"{mirror.rstrip('/')}/{path}" for path in (file.path, f"{entry.repository}/{file.path}")]
    yield from _from_web(file, places)


def _read(source: IO[bytes] | http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _from_directory(entry: Entry, file: File, directory: Path) -> Iterator[bytes]:
    for path in (directory / file.path, directory / entry.repository / file.path):
        if path.is_file():
            with path.open("rb") as source:
                yield from _read(source)
            return
    raise NotFound(f"the mirror {directory} has no {file.path} (nor {entry.repository}/{file.path})")


@lru_cache(maxsize=1)
def _opener() -> urllib.request.OpenerDirector:
    """http and https only: the library's own default also opens file: and ftp: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "edgeai")]
    return opener


def _from_web(file: File, places: Iterable[str]) -> Iterator[bytes]:
    missing = ""
    for place in places:
        try:
            with cast("http.client.HTTPResponse", _opener().open(place, timeout=TIMEOUT)) as answer:
                yield from _read(answer)
            return
        except urllib.error.HTTPError as error:
            if error.code not in {404, 410}:
                raise Unavailable(f"{place} answers {error.code} {error.reason}; try again later") from error
            missing = place
        except http.client.IncompleteRead as error:
            raise Unavailable(f"{file.path} broke off ({error}); try again") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reason = getattr(error, "reason", error)
            hint = f"check the network, or set {MIRROR_VARIABLE} to a directory or address that has the file"
            raise Unavailable(f"cannot fetch {place}: {reason}; {hint}") from error
    raise NotFound(f"{missing} does not exist; check {MIRROR_VARIABLE}")
