"""The one exception tree.

Each class carries its HTTP status, its gRPC status name and the exit code of the command line, so that
every protocol adapter maps errors by reading an attribute and none has a table of its own.
Exit codes follow sysexits.h where it has a fitting one.
"""

from __future__ import annotations

import traceback
from typing import ClassVar, Final

#: Header of an answer that is an error: the name of its class, where a status alone stands for several.
KIND_HEADER: Final = "X-Edgeai-Error"


class EdgeaiError(Exception):
    """Base of all errors that a user may see. The text says what, where, and what to do next."""

    http: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 70  # EX_SOFTWARE
    #: Seconds after which asking again makes sense; None = asking again will not help.
    retry_after: float | None = None


class InvalidRequest(EdgeaiError):
    """The request is malformed: shape, dtype, JSON, parameters."""

    http = 400
    grpc = "INVALID_ARGUMENT"
    exit_code = 64  # EX_USAGE


class InvalidArgument(InvalidRequest, TypeError):
    """A function of the client was given a value of the wrong type."""


class InvalidData(InvalidRequest):
    """A picture, a tensor or another file is damaged, or not of the kind that is needed."""

    exit_code = 65  # EX_DATAERR


class InvalidModel(InvalidData):
    """A model file, manifest or bundle is damaged, inconsistent or not acceptable."""


class CannotWrite(EdgeaiError):
    """A file that was asked for cannot be written: no right, no room, no such directory."""

    exit_code = 73  # EX_CANTCREAT


class InvalidConfig(EdgeaiError):
    """A configuration file cannot be used."""

    exit_code = 78  # EX_CONFIG


class AlreadyExists(InvalidRequest):
    """A thing of this name is there already."""

    grpc = "ALREADY_EXISTS"


class Cancelled(EdgeaiError):
    """The client went away or withdrew the request."""

    http = 400
    grpc = "CANCELLED"


class NotFound(EdgeaiError):
    """Unknown model, version, tensor, region, device or path."""

    http = 404
    grpc = "NOT_FOUND"
    exit_code = 66  # EX_NOINPUT


class PermissionDenied(EdgeaiError):
    """The caller's role does not allow this."""

    http = 403
    grpc = "PERMISSION_DENIED"
    exit_code = 77  # EX_NOPERM


class TooLarge(EdgeaiError):
    """A body, tensor, file or message is over its limit."""

    http = 413
    grpc = "RESOURCE_EXHAUSTED"
    exit_code = 65


class Unsupported(EdgeaiError):
    """Known, but not built or not installed here."""

    http = 501
    grpc = "UNIMPLEMENTED"
    exit_code = 69  # EX_UNAVAILABLE


class Unavailable(EdgeaiError):
    """Not now: queue full, model loading, device lost. Asking again makes sense."""

    http = 503
    grpc = "UNAVAILABLE"
    exit_code = 75  # EX_TEMPFAIL
    retry_after = 1.0


class QueueFull(Unavailable):
    """The device's queue has no room."""


class DeviceError(Unavailable):
    """A device or its runtime failed; its worker is replaced."""


class DeadlineExceeded(EdgeaiError):
    """The request's deadline passed before an answer was there."""

    http = 504
    grpc = "DEADLINE_EXCEEDED"
    exit_code = 75


def answered(error: BaseException | None) -> None:
    """An error has become an answer: let go of what the functions that it went through had in hand.

    Requests and futures keep their errors, and the traceback of an error keeps the functions' variables, the request
    and its whole body among them: a cycle, which would stay in memory until the collector comes.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
