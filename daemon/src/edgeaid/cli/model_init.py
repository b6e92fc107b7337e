"""`edgeai model init`: a model directory to edit, from a bare file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from .. import errors
from . import local
from .text import hint

#: Table -> (key, what it is, an example) of what may be added.
_CHOICES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "": (
        ("task", "classify, detect, segment, embed or other", '"classify"'),
        ("description", "one line for `edgeai models`", '""'),
        ("license", "an SPDX identifier", '"Apache-2.0"'),
    ),
    "labels": (("file", "one label per line, line 0 first", '"labels.txt"'),),
    "input": (
        ("resize", "stretch, letterbox or crop", '"stretch"'),
        ("color", "RGB, BGR or GRAY", '"RGB"'),
        (
            "mean",
            "the model gets (pixel - mean) / std, quantised as the file says; default: raw pixels",
            "[127.5]",
        ),
        ("std", "one number, or one per channel", "[127.5]"),
    ),
    "output": (
        ("decoder", "classification, ssd, yolov2, segmentation or none", '"classification"'),
        ("activation", "applied to scores: none, softmax or sigmoid", '"none"'),
        ("threshold", "detections below this score are left out", "0.3"),
        ("max_results", "at most this many", "20"),
    ),
}


@click.command("init")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="Name of the model (default: from the file).")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Where to make NAME/1.")
@local.describing
def init(
    file: Path,
    name: str | None,
    output: Path | None,
    mean: str,
    std: str,
    labels: Path | None,
    task: str,
    input_format: str,
) -> None:
    """Make a model directory NAME/1 from FILE, with a commented model.toml to edit; then: edgeai push NAME/1"""
    local.check_file(file, any_model=True)
    name = name or local.name_of(file)
    directory = (output or Path()) / name / "1"
    if directory.exists():
        raise errors.AlreadyExists(f"{directory} exists already; remove it, or name another with --name or --output")
    said = local.description(mean, std, labels, task, input_format)
    for note in local.directory_of(file, name, said, directory):
        hint(f"note: {note}")
    toml = directory / "model.toml"
    toml.write_text(commented(tomllib.loads(toml.read_text("utf-8"))), "utf-8")
    click.echo(str(directory))
    hint(f"edit {toml}, then: edgeai push {directory}")


def commented(table: dict[str, Any]) -> str:
    """A manifest's text with a remark on every key, and keys that may be added as comments."""
    lines = [
        "# How edgeaid runs this model; every key: daemon/docs/models.md",
        *_keys({k: v for k, v in table.items() if not isinstance(v, dict | list)}, ""),
    ]
    for target, artifact in table.get("artifacts", {}).items():
        lines += ["", f"# The file for {target}; other targets: cpu, edgetpu, ncs, ncs2, k210", f"[artifacts.{target}]"]
        lines += local.dump(artifact).splitlines()
    for title in ("labels", "input", "output"):
        if title in table:
            lines += ["", f"[{title}]", *_keys(table[title], title)]
        else:
            lines += ["", f"# [{title}]", *_keys({}, title)]
    rest = {k: v for k, v in table.items() if k not in ("artifacts", *_CHOICES) and isinstance(v, dict | list)}
    return "\n".join([*lines, *(["", local.dump(rest).strip()] if rest else [])]) + "\n"


def _keys(table: dict[str, Any], title: str) -> list[str]:
    remarks = {key: remark for key, remark, _ in _CHOICES[title]}
    lines = []
    for line in local.dump(table).splitlines() if table else []:
        key = line.partition(" = ")[0]
        lines += [f"# {remarks[key]}"] if key in remarks else []
        lines.append(line)
    for key, remark, example in _CHOICES[title]:
        if key not in table:
            lines += [f"# {remark}", f"# {key} = {example}"]
    return lines
