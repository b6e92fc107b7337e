"""The converters' own Python environments: created on first use from hash-pinned locks, kept in the user's cache.

Converters pin TensorFlow, numpy and protobuf versions that exclude each other, and each weighs hundreds of megabytes,
so none is a dependency of this package. A lock is `locks/<name>.txt`, made from `locks/<name>.in` by `scripts/lock`; an
environment's directory carries the digest of its lock, so a new lock makes a new environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from ...errors import CannotWrite, NotFound, Unsupported
from ..run import child

#: Written last: without it an environment is unfinished and made again.
_COMPLETE: Final = "edgeai-complete"
_TIMEOUT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Environment:
    """One converter's environment."""

    name: str
    purpose: str
    #: Python versions that its lock is for, best first.
    pythons: tuple[str, ...]
    #: Disk space, measured in a new environment; about a third of it is downloaded.
    size: str
    #: Module whose import shows that an interpreter given by the user will do.
    probe: str


_NEWER: Final = ("3.11", "3.12", "3.13")

ENVIRONMENTS: Final[dict[str, Environment]] = {
    e.name: e
    for e in (
        Environment("tensorflow", "Keras, SavedModel and frozen graphs to TFLite", _NEWER, "2.1 GB", "tensorflow"),
        Environment("quantizer", "float TFLite to int8 TFLite", _NEWER, "180 MB", "ai_edge_quantizer"),
        Environment("onnx2tf", "ONNX to TFLite with channels last", ("3.12",), "540 MB", "onnx2tf"),
        Environment("torch", "PyTorch to TFLite", _NEWER, "6.4 GB", "litert_torch"),
        Environment("tf2onnx", "TFLite to ONNX", _NEWER, "2.1 GB", "tf2onnx"),
        Environment("openvino", "ONNX, TFLite and TensorFlow to OpenVINO IR", _NEWER, "190 MB", "openvino"),
        Environment("nncase", "float TFLite and ONNX to kmodel v5", ("3.10", "3.9", "3.8"), "95 MB", "nncase"),
    )
}  # fmt: skip


def cache() -> Path:
    """Directory of all environments: ${XDG_CACHE_HOME:-~/.cache}/edgeai/environments."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "edgeai" / "environments"
    home = _home()
    if home is None:
        raise CannotWrite("this user has no home directory for the environments; set XDG_CACHE_HOME to a directory")
    return home / ".cache" / "edgeai" / "environments"


def _home() -> Path | None:
    """None where neither HOME nor the list of users names one, as in a container that runs under any user id."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def lock(name: str) -> str:
    """Text of an environment's lock."""
    return (files(__package__) / "locks" / f"{name}.txt").read_text("utf-8")


def directory(name: str) -> Path:
    """Where the environment lies or would lie."""
    digest = hashlib.sha256(lock(name).encode()).hexdigest()[:12]
    return cache() / f"{name}-{digest}"


def override(name: str) -> str:
    """Name of the variable by which a user gives an interpreter of their own."""
    return f"EDGEAI_PYTHON_{name.upper()}"


def ready(name: str) -> Path | None:
    """The interpreter of an environment that is there, None if it has to be made first."""
    if given := os.environ.get(override(name)):
        return Path(given)
    python = directory(name) / "bin" / "python"
    return python if (directory(name) / _COMPLETE).is_file() and python.exists() else None


def python(name: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """The interpreter of an environment, which is created if it is not there. `say` is called with what takes long.

    Raises NotFound for an unknown name, Unsupported if it cannot be created, with what to install.
    """
    environment = ENVIRONMENTS.get(name)
    if environment is None:
        raise NotFound(f"no environment {name!r}; there are {', '.join(ENVIRONMENTS)}")
    if (interpreter := ready(name)) is not None:
        _probe(interpreter, environment)
        return interpreter
    target = directory(name)
    with _locked(target):
        if (interpreter := ready(name)) is not None:  # another process made it meanwhile
            return interpreter
        say(f"creating the environment {name!r} ({environment.purpose}, about {environment.size}) in {target}")
        shutil.rmtree(target, ignore_errors=True)
        _create(environment, target)
        (target / _COMPLETE).write_text(environment.name + "\n")
    return target / "bin" / "python"


def remove(name: str) -> list[Path]:
    """Delete an environment, with those of older locks. Returns the directories deleted."""
    paths = [
        p
        for p in cache().glob(f"{name}-*")
        if p.is_dir() and re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{12}}", p.name)
    ]
    for path in paths:
        shutil.rmtree(path)
    return paths


def _probe(interpreter: Path, environment: Environment) -> None:
    """An interpreter that the user gave must have the package; the check is skipped for our own."""
    if not os.environ.get(override(environment.name)):
        return
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({environment.probe!r}) is None)"
    if child([interpreter, "-c", code], timeout=120).status != 0:
        raise Unsupported(f"{override(environment.name)}={interpreter} has no module {environment.probe!r}; unset it")


def _create(environment: Environment, target: Path) -> None:
    base = find_python(environment)
    if base is None:
        wanted = " or ".join(environment.pythons)
        raise Unsupported(
            f"{environment.name} needs Python {wanted}, which is not on PATH; install it "
            f"(`uv python install {environment.pythons[0]}`, or your distribution's python{environment.pythons[0]}), "
            f"or set {override(environment.name)} to an interpreter that has {environment.probe}"
        )
    requirements = target.with_name(target.name + ".lock.txt")
    requirements.parent.mkdir(parents=True, exist_ok=True)
    requirements.write_text(lock(environment.name), "utf-8")
    uv = shutil.which("uv")
    # Locks are complete, so nothing is resolved: --no-deps.
    install: list[str | Path] = ["--require-hashes", "--no-deps", "-r", requirements]
    try:
        if uv:
            _step(
                [uv, "venv", "--quiet", "--no-python-downloads", "--python", base, target], "creating the environment"
            )
            _step([uv, "pip", "install", "--quiet", "--python", target / "bin" / "python", *install], "installing")
        else:
            if base.resolve() == Path(sys.executable).resolve():
                venv.create(target, with_pip=True, symlinks=True)
            else:
                _step([base, "-m", "venv", target], "creating the environment")
            _step([target / "bin" / "python", "-m", "pip", "install", "--quiet", *install], "installing")
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        requirements.unlink(missing_ok=True)


def _step(command: list[str | Path], what: str) -> None:
    done = child(command, timeout=_TIMEOUT)
    if done.status != 0:
        tail = " / ".join(line.strip() for line in done.error.splitlines()[-4:])
        raise Unsupported(f"{what} failed: {tail or done.reason}; is there a network and enough disk space?")


def find_python(environment: Environment) -> Path | None:
    """An interpreter of one of the wanted versions: this one, one on PATH, one that pyenv or uv installed."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in environment.pythons:
        if version == own:
            return Path(sys.executable)
        for candidate in _candidates(version):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            # A shim may exist and still refuse to run.
            if candidate.is_file() and child([candidate, "-c", code], timeout=30).output.strip() == version:
                return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    for place in os.environ.get("PATH", "").split(os.pathsep):
        if place:
            yield Path(place) / f"python{version}"
    home = _home()
    if home is None:
        return
    for pattern in (f".pyenv/versions/{version}*/bin/python", f".local/share/uv/python/cpython-{version}*/bin/python3"):
        yield from sorted(home.glob(pattern), reverse=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Only one process creates an environment; the others wait for it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(
            f"{target.parent} cannot be made: {error.strerror}; set XDG_CACHE_HOME to a directory of yours"
        ) from error
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
