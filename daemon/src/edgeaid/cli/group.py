"""Groups of verbs that are imported when used, with one way to fail.

`edgeai --help` and completion must stay fast, so a verb's module is imported at its first use and its summary stands in
the group's table. Every failure ends in a sentence and an exit status of sysexits.h.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from ..errors import CannotWrite, EdgeaiError, NotFound, PermissionDenied, Unavailable, Unsupported

if TYPE_CHECKING:
    from .common import Session

USAGE: Final = 64
INTERRUPTED: Final = 130
#: Verbs that are taken for one of ours when there is no better reading.
_MIN_LIKENESS: Final = 0.6


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a command is, and what help says about it."""

    #: Module of this package.
    module: str
    #: Name of the command in it.
    command: str
    #: One line.
    summary: str
    #: Heading in the group's help.
    section: str = "Commands"


class LazyGroup(click.Group):
    """A group whose commands are imported when asked for."""

    #: Verb -> where it is.
    verbs: Mapping[str, Verb] = {}
    #: What people type -> verb.
    aliases: Mapping[str, str] = {}
    #: Verbs of another group that people look for here -> the command.
    elsewhere: Mapping[str, str] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self.verbs.get(self.aliases.get(cmd_name, cmd_name))
        if verb is None:
            return None
        if verb.module == "model" and find_spec(f"{__package__}.{verb.module}") is None:
            raise Unsupported(
                "this device carries no toolkit: run `edgeai model` on a desk (pip install './daemon[toolkit]') "
                "or add the package edgeaid-toolkit to the image"
            )
        command: click.Command = getattr(importlib.import_module(f".{verb.module}", __package__), verb.command)
        _take_json(command)
        _open_later(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[:1] == ["help"] and "help" not in self.verbs:
            args = [*args[1:], "--help"]
        if args == ["--help"]:
            click.echo(ctx.get_help())
            ctx.exit()
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            meant = {"help": "help", **self.elsewhere, **self.aliases, **{verb: verb for verb in self.verbs}}
            near = difflib.get_close_matches(args[0], meant, 1, _MIN_LIKENESS) if args else []
            if not near:
                raise
            text = f"{error.message} Did you mean '{meant[near[0]]}'?"
            raise click.UsageError(text, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(verb.section for verb in self.verbs.values()):
            with formatter.section(section):
                formatter.write_dl([(n, v.summary) for n, v in self.verbs.items() if v.section == section])

    def main(  # type: ignore[override]  # one signature for click's two overloads
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        standalone = extra.pop("standalone_mode", True)
        if not standalone:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            status = super().main(args, prog_name, standalone_mode=False, **extra)
        except (click.exceptions.Abort, KeyboardInterrupt):
            click.echo(err=True)
            sys.exit(INTERRUPTED)
        except click.UsageError as error:
            _refuse_usage(error, args)
        except click.ClickException as error:
            error.show()
            sys.exit(USAGE)
        except EdgeaiError as error:
            _refuse(error)
        except OSError as error:
            _refuse(_of_system(error))
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head -1` has what it wanted; click would end with 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            sys.exit(0)
        except EdgeaiError as error:
            if ctx.parent is not None:
                raise
            _refuse(error, ctx.obj)


def _take_json(command: click.Command) -> None:
    """Let a verb be asked for JSON: `edgeai --json VERB` and `edgeai VERB --json` are the same."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _take_json(below)
        return
    for parameter in command.params:
        if parameter.name == "as_json":
            parameter.default = _asked_for_json
            return
    if not any("--json" in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(
                ["--json"], is_flag=True, expose_value=False, callback=_remember_json, help="Machine-readable output."
            )
        )


def _open_later(command: click.Command) -> None:
    """Leave it to the verbs to open files: click calls one that may not be read wrong use, which is another status."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _open_later(below)
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.readable = False


def _asked_for_json() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("as_json"))


def _remember_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    root = ctx.find_root()
    if value and root.obj is not None:
        root.obj.as_json = True
        root.params["as_json"] = True


def _of_system(error: OSError) -> EdgeaiError:
    """A disk that is full and the like, wherever it was met. Raises again what tells of a fault of ours."""
    file = error.filename2 or error.filename
    text = f"{file}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        return CannotWrite(text if file else f"{_unwritten(error)} cannot be written: {error.strerror}")
    if error.errno in (errno.EACCES, errno.EPERM) and file:
        return CannotWrite(f"{file} cannot be written: {error.strerror}") if _to_write(file) else PermissionDenied(text)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG) and file:
        return NotFound(text)
    raise error


def _to_write(file: str | bytes | int) -> bool:
    """Whether a file that was refused was to be written: it can be read, or is to be made in a directory."""
    if os.path.exists(file) or isinstance(file, int):
        return os.access(file, os.R_OK)
    return os.access(os.path.dirname(os.fsdecode(file)) or ".", os.X_OK)


def _unwritten(error: OSError) -> str:
    """What a full disk has no room for: the system does not say which file it was."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    # Python would try standard output once more at its end, and say so.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return "standard output" if step and step.tb_frame.f_code is click.echo.__code__ else "a file or standard output"


def _refuse_usage(error: click.UsageError, args: Sequence[str] | None) -> NoReturn:
    words = sys.argv[1:] if args is None else args
    if "--json" in words:
        click.echo(json.dumps({"error": error.format_message(), "kind": "InvalidRequest"}))
    else:
        error.show()
    sys.exit(USAGE)


def _refuse(error: EdgeaiError, session: Session | None = None) -> NoReturn:
    """Say why, and end with the error's exit status."""
    text = str(error) + (_nearest_model(error, session) or _private_daemon(error, session) if session else "")
    if session is not None and session.as_json:
        click.echo(json.dumps({"error": text, "kind": type(error).__name__}))
    else:
        click.echo(f"edgeai: {text}", err=True)
    sys.exit(error.exit_code)


def _private_daemon(error: EdgeaiError, session: Session) -> str:
    """Where the private daemon of `edgeai run` answers, when the system's does not and no other was named."""
    if session.named or not isinstance(error, Unavailable) or not str(error).startswith("cannot reach edgeaid"):
        return ""
    from . import private

    socket = private.answering()
    return f"; the private one of `edgeai run` answers: export EDGEAI_SOCKET={socket}" if socket else ""


def _nearest_model(error: EdgeaiError, session: Session) -> str:
    """What an unknown model may have been meant for."""
    asked = re.search(r"(?:unknown model:?|failed to (?:un)?load) '([^']{1,64})'", str(error))
    if not isinstance(error, NotFound) or asked is None:
        return ""
    try:
        names = sorted({row["name"] for row in session.client.models()})
    except EdgeaiError:
        return ""
    if asked[1] in names:
        return "" if "failed to" in asked[0] else f"; edgeai load {asked[1]} serves it"
    spelled = {name.casefold(): name for name in reversed(names)}
    near = [spelled[n] for n in difflib.get_close_matches(asked[1].casefold(), spelled, 1, _MIN_LIKENESS)]
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(names[:20])}" if names else ""
