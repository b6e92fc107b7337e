"""`edgeai stream`: cameras and files that the daemon analyses continuously."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import errors
from ..paths import HTTP_SOCKET
from .common import Session, complete_model, pass_session
from .pictures import format_of, write
from .text import table
from .watch import until_interrupted

if TYPE_CHECKING:
    from ..client.streams import Streams

EPILOG = """\
\b
Examples:
  edgeai stream add porch rtsp://user:password@camera/stream --detect ssd --label person --label dog
  edgeai stream add door --table door.toml
  edgeai stream watch porch
  edgeai --json stream watch porch | jq .
"""


@click.group(epilog=EPILOG)
def stream() -> None:
    """Cameras, videos and directories of pictures that are analysed continuously."""


def streams_of(session: Session) -> Streams:
    """The daemon's streams."""
    from ..client.streams import Streams

    return Streams(session.client)


def _complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from ..client import Client
    from ..client.streams import Streams

    root = ctx.find_root()
    try:
        with Client(root.params.get("socket") or os.environ.get("EDGEAI_SOCKET", HTTP_SOCKET), timeout=1.0) as client:
            return sorted(s["name"] for s in Streams(client).list() if s["name"].startswith(incomplete))
    except errors.EdgeaiError:
        return []


name_argument = click.argument("name", shell_complete=_complete)


@stream.command()
@click.argument("name")
@click.argument("source", required=False, default="")
@click.option("--table", "file", type=click.Path(path_type=Path), help="A file with [stream.NAME].")
@click.option("--detect", metavar="MODEL", shell_complete=complete_model, help="Find objects with this model.")
@click.option("--label", "labels", multiple=True, help="Only these labels; may be repeated.")
@click.option("--classify", metavar="MODEL", shell_complete=complete_model, help="Then ask this model about each.")
@click.option("--fps", type=float, help="Frames per second taken from the source.")
@click.option("--motion", is_flag=True, help="Look only when something moves.")
@click.option("--snapshot", is_flag=True, help="Keep a JPEG of each event.")
@pass_session
def add(
    session: Session,
    name: str,
    source: str,
    file: Path | None,
    detect: str | None,
    labels: tuple[str, ...],
    classify: str | None,
    fps: float | None,
    motion: bool,
    snapshot: bool,
) -> None:
    """Add a stream, or change one.

    SOURCE is rtsp://..., /dev/videoN, libcamera:N, http://.../still.jpg, http://... (MJPEG), a video file, a directory
    of pictures, or test:digits. Paths are the device's own.
    """
    if file is not None:
        if source or detect or classify or labels or fps or motion or snapshot:
            raise errors.InvalidRequest("--table says everything; leave the source and the other options out")
        answer = _put_file(session, name, file)
    else:
        if not source:
            raise errors.InvalidRequest("give a source (for example rtsp://camera/stream), or --table FILE")
        answer = streams_of(session).put(name, _made(source, detect, labels, classify, fps, motion, snapshot))
    session.show(answer, f"{name} is {answer['state']}")


def _put_file(session: Session, name: str, file: Path) -> dict[str, Any]:
    """A table of a file; what is wrong with it is said with the file and the line."""
    try:
        return streams_of(session).put(name, file.read_text())
    except OSError as error:
        raise errors.NotFound(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise errors.InvalidData(f"{file}: {error}") from error
    except (errors.InvalidData, errors.TooLarge) as error:
        said = str(error)
        raise type(error)(f"{file}{', ' if said.startswith('line ') else ': '}{said}") from error


def _made(
    source: str,
    detect: str | None,
    labels: tuple[str, ...],
    classify: str | None,
    fps: float | None,
    motion: bool,
    snapshot: bool,
) -> dict[str, Any]:
    stages: list[dict[str, Any]] = [{"motion": {}}] if motion else []
    if detect:
        stages += [{"detect": detect, "labels": list(labels)}, {"track": {}}]
    elif labels:
        raise errors.InvalidRequest("--label needs --detect")
    if classify:
        stages.append({"classify": classify})
    made: dict[str, Any] = {"source": source, "stage": stages}
    if fps is not None:
        made["fps"] = fps
    if snapshot:
        made["events"] = {"snapshot": True}
    return made


def _row(s: dict[str, Any]) -> tuple[object, ...]:
    frames = s["frames"]
    seen = ", ".join(f"{n} {label}" for label, n in sorted(s.get("counts", {}).get("objects", {}).items()))
    latency = s.get("latency", {}).get("p50_ms")
    return (
        s["name"],
        s["state"],
        s.get("fps", ""),
        frames["captured"],
        frames["gated"],
        frames["inferred"],
        sum(frames["dropped"].values()),
        "" if latency is None else f"{latency:.0f}",
        seen,
        s["reason"] or s["source"],
    )


_COLUMNS = (
    "NAME", "STATE", "FPS>?3", "CAPTURED>", "GATED>?4", "INFERRED>", "DROPPED>", "LATENCY ms>?2", "SEEN~", "NOTE~?1",
)  # fmt: skip


@stream.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the streams: state, where their frames went, what is seen."""
    streams = streams_of(session).list()
    session.show(streams, table(_COLUMNS, [_row(s) for s in streams]))


@stream.command()
@name_argument
@pass_session
def show(session: Session, name: str) -> None:
    """Everything about one stream, without passwords."""
    session.show(streams_of(session).show(name))


def _switch(verb: str, done: str, text: str) -> click.Command:
    @stream.command(verb, help=text)
    @name_argument
    @pass_session
    def command(session: Session, name: str) -> None:
        answer = streams_of(session).switch(name, verb)
        session.show(answer, f"{name} is {done}")

    return command


start = _switch("start", "started", "Start a stream, now and whenever the daemon starts.")
stop = _switch("stop", "stopped", "Stop a stream; it stays stopped until it is started again.")
restart = _switch("restart", "started anew", "Start a stream anew; a file begins again.")


@stream.command()
@name_argument
@pass_session
def remove(session: Session, name: str) -> None:
    """Stop and forget a stream."""
    streams_of(session).remove(name)
    session.show({"removed": name}, f"{name} is removed")


@stream.command()
@name_argument
@click.option("--width", type=int, default=0, help="Pixels; smaller than the frame.")
@click.option("--boxes/--no-boxes", default=True, show_default=True, help="Draw what was seen.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("-"), help="File, - for standard output.")
@pass_session
def frame(session: Session, name: str, width: int, boxes: bool, output: Path) -> None:
    """The newest frame; the suffix of the file decides the format, standard output (-) gets JPEG."""
    if str(output) != "-":
        format_of(output)
    data: bytes = streams_of(session).frame(name, boxes=boxes, width=width)
    if str(output) == "-":
        sys.stdout.buffer.write(data)
        return
    write(data, output)


@stream.command()
@name_argument
@click.option("--results", is_flag=True, help="What is seen in each frame, instead of events.")
@click.option("--type", "types", multiple=True, help="Only these kinds of event; may be repeated.")
@pass_session
def watch(session: Session, name: str, results: bool, types: tuple[str, ...]) -> None:
    """Follow a stream: its events as they come. Ends with Ctrl-C."""
    client = streams_of(session)
    following = client.results(name) if results else client.events(name, types=types)
    with until_interrupted():
        for event in following:
            click.echo(json.dumps(event) if session.as_json else _line(event))


def _line(event: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    kind = event.get("type", "frame")
    if kind == "state":
        text = event["state"] + (f": {event['reason']}" if event["reason"] else "")
    elif "objects" in event:
        seen = (f"{o['label']} {o['score']:.2f}" for o in event["objects"])
        text = f"{event['frame']}: {', '.join(seen) or 'nothing'}  ({event['latency_ms']:.0f} ms)"
    elif "box" in event:
        text = _object(event)
    else:
        rest = {k: v for k, v in event.items() if k not in ("type", "time", "stream", "event_id")}
        text = ", ".join(f"{k} {v}" for k, v in rest.items())
    return f"{clock}  {kind:7} {text}"


def _object(event: dict[str, Any]) -> str:
    label = event["label"] + (f" ({event['sub_label'][0]})" if event["sub_label"] else "")
    where = tuple(event["pixels"].values())
    number = event["id"].rpartition("-")[2]
    more = [f"{key} {event[key]}" for key in ("zone", "line", "direction", "seconds") if key in event]
    return f"#{number} {label} {event['score']:.2f} at {where}" + (f", {', '.join(more)}" if more else "")


@stream.command()
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Seconds between two views.")
@click.option("--count", type=int, default=0, help="End after so many views; 0 = go on.")
@pass_session
def top(session: Session, seconds: float, count: int) -> None:
    """A live view of all streams. Ends with Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    with until_interrupted(), Live(auto_refresh=False, screen=False) as live:
        for number in itertools.count(1):
            text = table(_COLUMNS, [_row(s) for s in streams_of(session).list()])
            live.update(Text.from_ansi(text), refresh=True)
            if number == count:
                return
            time.sleep(seconds)
