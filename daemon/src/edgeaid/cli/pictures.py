"""Pictures in and out of the verbs that ask about them: which files are asked, and where drawn ones go."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from .. import errors
from ..client.pictures import check_file
from .common import Session, read_picture
from .text import hint, picture_lines, plain

#: Suffix -> Pillow's name of the format.
FORMATS: Final = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip

PICTURES = click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the picture with the answer drawn on it: a file (its suffix decides the format) or, for several "
    "pictures, a directory.",
)
SHOW = click.option("--show", is_flag=True, help="Show the picture with the answer in the terminal.")


def check_readable(pictures: Sequence[Path]) -> None:
    """Refuse when none of the pictures can be read, with the reason for the first: what asks about them may be an
    upload away. One bad picture among others is named when its turn comes.
    """
    refused: list[errors.EdgeaiError] = []
    for picture in pictures:
        if str(picture) == "-":
            return
        try:
            check_file(picture)
            return
        except errors.EdgeaiError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def targets(pictures: Sequence[Path], output: Path | None) -> list[Path | None]:
    """Where each drawn picture goes; refuses before anything is asked what cannot be written or is asked about."""
    if output is None:
        return [None] * len(pictures)
    places = _places(pictures, output)
    sources = {picture.resolve() for picture in pictures if str(picture) != "-"}
    for place in places:
        if place.resolve() in sources:
            raise errors.InvalidRequest(f"--output {output} would overwrite the picture {place}; name another")
    return list(places)


def _places(pictures: Sequence[Path], output: Path) -> list[Path]:
    if str(output) == "-":
        raise errors.InvalidRequest("--output -: pictures are not written to standard output; name a file")
    if len(pictures) == 1 and not output.is_dir() and (output.suffix or output.exists()):
        format_of(output)
        if not output.parent.is_dir():
            if output.parent.exists():
                raise errors.CannotWrite(f"{output} cannot be written: {output.parent} is a file, not a directory")
            raise errors.CannotWrite(
                f"{output} cannot be written: there is no directory {output.parent}; make it: mkdir -p {output.parent}"
            )
        return [output]
    if not output.is_dir() and (output.exists() or output.suffix.lower() in FORMATS):
        raise errors.InvalidRequest(f"--output {output} is one file for {len(pictures)} pictures; name a directory")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.CannotWrite(f"--output {output}: {error.strerror}") from error
    names: list[str] = []
    for place, picture in enumerate(pictures, 1):
        stem = "picture" if str(picture) == "-" else picture.stem
        numbered = (f"{stem}-{number}.png" for number in itertools.count(place))
        names.append(next(name for name in itertools.chain([f"{stem}.png"], numbered) if name not in names))
    return [output / name for name in names]


def format_of(file: Path) -> str:
    """Pillow's name of the format that the file's suffix says. InvalidRequest for other suffixes."""
    form = FORMATS.get(file.suffix.lower())
    if form is None:
        raise errors.InvalidRequest(f"--output {file}: pictures are written as {', '.join(FORMATS)}")
    return form


def write(picture: bytes, file: Path) -> None:
    """Write a picture, a PNG or JPEG, in the format of the file's suffix."""
    data = picture
    form = format_of(file)
    if form != ("PNG" if picture.startswith(b"\x89PNG") else "JPEG"):
        from PIL import Image

        buffer = io.BytesIO()
        try:
            Image.open(io.BytesIO(picture)).convert("RGB").save(buffer, form)
        except (OSError, KeyError) as error:
            raise errors.Unsupported(f"--output {file}: {form} cannot be written here: {error}") from error
        data = buffer.getvalue()
    try:
        file.write_bytes(data)
    except OSError as error:
        raise errors.CannotWrite(f"--output {file}: {error.strerror}") from error
    hint(f"wrote {file}")


def times(answer: dict[str, Any]) -> str:
    """Who answered, and how long each phase took."""
    phases = ", ".join(f"{k.removesuffix('_ms')} {v:.2f}" for k, v in answer["timing"].items())
    return f"{answer['model']}/{answer['version']} on {answer['device']}; ms: {phases}"


def ask_about(
    session: Session,
    pictures: Sequence[Path],
    output: Path | None,
    show: bool,
    ask: Callable[[bytes], Any],
    text: Callable[[dict[str, Any]], str],
    draw: Callable[[bytes], bytes],
) -> None:
    """Ask about each picture, print the answers and draw them. A bad picture is named and the others are answered;
    the error of the last bad one is the end then.
    """
    places = targets(pictures, output)
    answers: list[dict[str, Any]] = []
    failed: errors.EdgeaiError | None = None
    for picture, place in zip(pictures, places, strict=True):
        try:
            data = read_picture(picture)
            answer = {"file": str(picture), **ask(data).to_dict()}
            drawn = draw(data) if place is not None or (show and not session.as_json) else b""
        except errors.EdgeaiError as error:
            if _concerns_all(error):
                raise
            reason = str(error) if str(picture) in str(error) else f"{picture}: {error}"
            if len(pictures) == 1:
                raise type(error)(reason) from error
            failed = error
            answers.append({"file": str(picture), "error": reason, "kind": type(error).__name__})
            hint(f"edgeai: {plain(reason)}")
            continue
        answers.append(answer)
        if not session.as_json:
            click.echo(f"{plain(picture)}  ({times(answer)})")
            click.echo(text(answer))
            if show:
                click.echo(picture_lines(drawn), color=sys.stdout.isatty() or None)  # NO_COLOR is not about pictures
        if place is not None:
            write(drawn, place)
    if session.as_json:
        session.show(answers if len(answers) > 1 else answers[0])
    if failed is not None:
        bad = sum("error" in a for a in answers)
        hint(f"edgeai: {bad} of {len(pictures)} pictures were not answered")
        raise click.exceptions.Exit(failed.exit_code)


def _concerns_all(error: errors.EdgeaiError) -> bool:
    """True when the next picture would fail in the same way: no daemon, no model, no right."""
    return isinstance(error, errors.Unavailable | errors.PermissionDenied) or "model '" in str(error)
