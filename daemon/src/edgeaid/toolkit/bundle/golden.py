"""Golden vectors: recorded inferences by which a device proves that it computes what the author's machine computed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel
from ...formats.tflite import reader as tflite
from ..run import have_litert, litert
from . import manifests
from .manifests import read_manifest

#: Inputs tried to find some with different outputs.
_TRIED: Final = 24


def complete(directory: Path, count: int) -> list[str]:
    """Fill in what a bundle needs: digests of artifacts, and `count` golden vectors if the manifest has none.

    Golden vectors are recorded with the cpu artifact on random inputs with a fixed seed. Returns what was done, a line
    each. Raises InvalidModel or NotFound as the bundle would.
    """
    manifest = read_manifest(directory)
    done = []
    artifacts = manifest.get("artifacts")
    for target, artifact in (artifacts if isinstance(artifacts, dict) else {}).items():
        if (
            isinstance(artifact, dict)
            and "sha256" not in artifact
            and (directory / str(artifact.get("file"))).is_file()
        ):
            digest = hashlib.sha256((directory / artifact["file"]).read_bytes()).hexdigest()
            manifests.set_key(directory, f"[artifacts.{manifests.key(target)}]", "sha256", digest)
            done.append(f"digest of {artifact['file']} written to the manifest")
    if count > 0 and not manifest.get("golden"):
        done += _record(directory, manifest, count)
    return done


def _record(directory: Path, manifest: dict[str, Any], count: int) -> list[str]:
    artifact = (manifest.get("artifacts") or {}).get("cpu")
    path = directory / str(artifact.get("file")) if isinstance(artifact, dict) else None
    if path is None or not path.is_file() or not tflite.is_tflite(path.read_bytes()):
        return ["no golden vectors: they are recorded with a TFLite artifact for the cpu, and there is none"]
    if not have_litert():
        return ["no golden vectors: no TFLite runtime is installed (pip install './daemon[litert]')"]
    model = tflite.read(path.read_bytes())
    names = [s.name for s in (*model.inputs, *model.outputs)]
    if len(set(names)) != len(names):
        raise InvalidModel(f"{path} has two inputs or outputs of one name; golden vectors name them")
    low, high = _range(manifest)
    answer = litert(path, {"runs": _TRIED, "seed": 7, "threads": 1, "low": low, "high": high})
    chosen = _different(answer, len(model.outputs), count)
    if len(chosen) < min(2, count):
        return [
            f"no golden vectors: the model gives the same output for {_TRIED} different inputs; see edgeai model check"
        ]
    (directory / "golden").mkdir(exist_ok=True)
    tables = []
    for number, run in enumerate(chosen):
        sides: dict[str, dict[str, str]] = {"inputs": {}, "outputs": {}}
        for side, specs in (("input", model.inputs), ("output", model.outputs)):
            for index, spec in enumerate(specs):
                name = f"golden/{number}.{side}{index}.npy"
                np.save(directory / name, answer[f"{side}_{run}_{index}"], allow_pickle=False)
                sides[f"{side}s"][spec.name] = name
        tables.append(manifests.table("[[golden]]", {**sides, "runtime": "litert"}))
    manifests.append(directory, tables)
    return [f"{len(chosen)} golden vectors recorded"]


def _range(manifest: dict[str, Any]) -> tuple[float, float]:
    """Real values that pixels 0 and 255 become, for models with float inputs."""
    table = manifest.get("input")
    mean, std = (table.get(k) for k in ("mean", "std")) if isinstance(table, dict) else (None, None)
    if not (isinstance(mean, list) and isinstance(std, list) and mean and std and all(std)):
        return 0.0, 1.0
    return (0 - float(mean[0])) / float(std[0]), (255 - float(mean[0])) / float(std[0])


def _different(answer: dict[str, Any], outputs: int, count: int) -> list[int]:
    """Up to `count` runs whose outputs all differ: equal ones would not tell a broken device from a sound one."""
    seen: dict[bytes, int] = {}
    for run in range(_TRIED):
        seen.setdefault(b"".join(answer[f"output_{run}_{i}"].tobytes() for i in range(outputs)), run)
    return sorted(seen.values())[:count]
