"""What is asked of a compiler, and what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..check.rules import rules
from ..convert.representative import PIXELS, Normalisation


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile and how."""

    models: tuple[Path, ...]
    #: edgetpu, ncs, ncs2 (IR), ncs2-blob, k210 (nncase 1.x, kmodel v5), k210-v4 (ncc 0.2) or k210-v3 (0.1).
    target: str
    #: Directory for the results.
    output: Path
    #: Program to run instead of the one on PATH.
    program: str = ""
    #: Container image that has the program; run with docker or podman, without a network.
    container: str = ""
    #: edgetpu: oldest runtime (-m). ncs: SHAVEs (-s), node names, weights.
    min_runtime: int = 0
    shaves: int = 12
    input_node: str = ""
    output_node: str = ""
    weights: Path | None = None
    #: k210: representative data and normalisation; "" = float model on the CPU part only.
    calibration: str = ""
    rules: Normalisation = PIXELS
    samples: int = 50
    #: The compiler's own options, name -> text; "" = a switch without a value.
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came out."""

    target: str
    command: tuple[str, ...]
    files: tuple[Path, ...]
    #: For the manifest: figures of the log or of the compiler, per file name.
    facts: Mapping[str, Mapping[str, Any]]
    #: Remarks, each with the number of its rule if it has one.
    remarks: tuple[str, ...] = field(default=())
    #: Options of the artifact in a manifest: how the daemon is to present what comes out.
    options: Mapping[str, Any] = field(default_factory=dict)


def kmodel_of(request: Request) -> Path:
    """Where a kmodel is written."""
    return request.output / f"{request.models[0].stem}.kmodel"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def explain(number: str) -> str:
    """Title and remedy of a rule; "" without one of that number."""
    rule = rules().get(number)
    return f"{rule.id} {rule.title}: {rule.remedy}" if rule else ""
