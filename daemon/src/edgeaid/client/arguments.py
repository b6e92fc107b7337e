"""What a program passes to a client, checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Final, Self

from .. import errors
from ..paths import HTTP_SOCKET

DEFAULT_SOCKET: Final = os.environ.get("EDGEAI_SOCKET", HTTP_SOCKET)
#: Longer than a daemon needs to give a model up that does not load (limits.load_seconds, 60): its reason has to arrive.
DEFAULT_TIMEOUT: Final = 90.0

#: Called with the bytes sent and the bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a daemon is."""

    path: str
    fast_path: str
    #: Seconds to wait for an answer.
    timeout: float
    #: How errors call the daemon; its socket's path says little at the end of a tunnel.
    name: str

    @classmethod
    def of(cls, path: object, fast_path: str | Path | None, timeout: float | None, name: str) -> Self:
        """Of a client's arguments. InvalidArgument, or InvalidRequest for a time that is not above 0."""
        if not isinstance(path, str | os.PathLike):
            raise errors.InvalidArgument(f"the daemon's socket must be named by a path, not {type(path).__name__}")
        check_timeout(timeout)
        text = str(path)
        place = str(fast_path or Path(text).parent / "fast.sock")
        return cls(text, place, DEFAULT_TIMEOUT if timeout is None else timeout, name or text)


class Upload:
    """A file on its way: its digest first, then its bytes in pieces."""

    def __init__(self, file: Path, progress: Progress | None) -> None:
        import hashlib

        self.file = file
        self.progress = progress
        try:
            self.total = file.stat().st_size
            with open(file, "rb") as stream:
                self.digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except IsADirectoryError as error:
            raise errors.InvalidRequest(
                f"{file} is a directory; push a bundle or a file (edgeai push takes model directories)"
            ) from error
        except OSError as error:
            raise errors.NotFound(f"{file}: {error.strerror}") from error

    def pieces(self) -> Iterator[bytes]:
        """The file's bytes."""
        sent = 0
        with open(self.file, "rb") as stream:
            while piece := stream.read(1 << 16):
                yield piece
                sent += len(piece)
                if self.progress is not None:
                    self.progress(sent, self.total)


def version_text(version: object) -> str:
    """A version as paths have it. InvalidArgument for other types."""
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise errors.InvalidArgument(f"a version must be a text or a number, not {type(version).__name__}")
    return str(version)


def upload_of(file: object, progress: Progress | None) -> Upload:
    """An upload of a path. InvalidArgument for other types, NotFound without the file."""
    if not isinstance(file, str | Path):
        raise errors.InvalidArgument(f"a model must be given as the path of its file, not {type(file).__name__}")
    if "\0" in str(file):
        raise errors.InvalidRequest(f"{str(file)!r} is not a path: it has a zero byte")
    return Upload(Path(file), progress)


def model_name(model: object) -> str:
    """A model's name. InvalidArgument, InvalidRequest."""
    if not isinstance(model, str):
        raise errors.InvalidArgument(f"a model must be named by a text, not {type(model).__name__}")
    if not model:
        raise errors.InvalidRequest("the model's name is empty")
    return model


def check_timeout(timeout: object) -> None:
    """InvalidArgument, InvalidRequest unless it is seconds or None."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise errors.InvalidArgument(f"timeout must be seconds or None, not {type(timeout).__name__}")
    if not 0 < timeout < 1e6:
        raise errors.InvalidRequest(f"timeout must be above 0 and below 1e6 seconds, not {timeout:g}; None = default")


def check_number(value: object, name: str, *, whole: bool = False) -> None:
    """InvalidArgument unless it is a number (a whole one), numpy's too, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral if whole else Real)):
        raise errors.InvalidArgument(f"{name} must be {'a whole number' if whole else 'a number'}, not {value!r:.40}")


def check_priority(priority: object) -> None:
    """InvalidArgument unless it is an integer from 0 to 255."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 255:
        raise errors.InvalidArgument(
            f"priority must be an integer from 1 (highest) to 255, 0 = default; not {priority!r}"
        )
