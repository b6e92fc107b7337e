"""Other people's .tflite files, pushed to a daemon and asked: nothing that is served differs from the raw interpreter,
and nothing that runs is refused.

`EDGEAI_TFLITE_COLLECTIONS` names directories or copies of git repositories with such files, separated by colons (for
example github.com/google-ai-edge/LiteRT, github.com/tensorflow/tflite-micro, github.com/google-coral/test_data).
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.tensors import NUMPY

from ..support.daemon import Running

pytestmark = pytest.mark.slow
#: Larger files say nothing more and take long.
MAX_BYTES = 40 << 20
#: Seconds for the raw interpreter.
RAW_SECONDS = 120.0
#: A runtime that crashes takes its process with it; forked from one that has it imported, a process is cheap.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "ai_edge_litert.interpreter"])


def collections(directory: Path) -> Iterator[Path]:
    """Every .tflite of the collections; those of git repositories written below `directory`."""
    places = os.environ.get("EDGEAI_TFLITE_COLLECTIONS", "")
    if not places:
        pytest.skip("set EDGEAI_TFLITE_COLLECTIONS to directories or git repositories with .tflite files")
    for number, place in enumerate(filter(None, places.split(":"))):
        if not (Path(place) / "HEAD").is_file():
            yield from sorted(f for f in Path(place).rglob("*.tflite") if f.stat().st_size <= MAX_BYTES)
            continue
        command = ["git", "-C", place, "ls-tree", "-r", "-l", "HEAD"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for line in listed:
            about, _, path = line.partition("\t")
            size = about.split()[3]
            if path.endswith(".tflite") and size.isdecimal() and int(size) <= MAX_BYTES:
                blob = subprocess.run(
                    ["git", "-C", place, "cat-file", "blob", about.split()[2]], capture_output=True, check=False
                )
                file = directory / f"{number}-{path.replace('/', '_')}"
                file.write_bytes(blob.stdout)
                if blob.returncode == 0 and blob.stdout:  # a copy may lack its largest files
                    yield file


def example(details: dict[str, Any], rng: np.random.Generator) -> Any:
    """Values for an input that most models take."""
    shape, dtype = tuple(details["shape"]), np.dtype(details["dtype"])
    if dtype.kind in "SUO":
        return np.full(shape, b"ab", dtype=object)
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.random(shape) > 0.5 if dtype.kind == "b" else rng.integers(0, 3, shape).astype(dtype)


def _raw(path: str, answer: str) -> None:
    """What a fresh interpreter makes of an example, twice: (inputs, outputs) or the runtime's refusal."""
    from ai_edge_litert.interpreter import Interpreter

    def once(inputs: list[Any] | None) -> tuple[list[Any], list[Any]]:
        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
        details = interpreter.get_input_details()
        rng = np.random.default_rng(1)
        given = inputs if inputs is not None else [example(d, rng) for d in details]
        for detail, array in zip(details, given, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        outputs = []
        for detail in interpreter.get_output_details():
            empty = np.empty(detail["shape"], detail["dtype"]) if 0 in detail["shape"] else None
            outputs.append(empty if empty is not None else np.asarray(interpreter.get_tensor(detail["index"])))
        return given, outputs

    try:
        given, first = once(None)
        same = all(equal(a, b) for a, b in zip(first, once(given)[1], strict=True))
        outcome: Any = (given, first if same else None)
    except (RuntimeError, ValueError, TypeError) as error:
        outcome = str(error)
    Path(answer).write_bytes(pickle.dumps(outcome))


def equal(a: Any, b: Any) -> bool:
    """The same values, shape and kind."""
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def raw(path: Path, answer: Path) -> Any:
    """The raw interpreter's answer, from a process of its own; None when it crashed or hung."""
    answer.unlink(missing_ok=True)
    child = PROCESSES.Process(target=_raw, args=(str(path), str(answer)))
    child.start()
    child.join(RAW_SECONDS)
    child.kill()
    return pickle.loads(answer.read_bytes()) if answer.is_file() else None


def served(running: Running, path: Path, given: list[Any] | None) -> list[Any] | str:
    """Outputs of a pushed file, asked twice, or why it was refused. `given` = None: it is pushed only."""
    with running.client() as client:
        try:
            client.push("trial", path)
            if given is None:
                return []
            metadata = client.metadata("trial")
            inputs = {t["name"]: a for t, a in zip(metadata["inputs"], given, strict=True)}
            answers = [client.infer("trial", inputs) for _ in range(2)]
        except errors.EdgeaiError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            with contextlib.suppress(errors.EdgeaiError):
                client.unload("trial")
    outputs = [[answer[t["name"]] for t in metadata["outputs"]] for answer in answers]
    assert all(t["datatype"] in (*NUMPY, "BYTES") for t in metadata["outputs"])
    if not all(equal(a, b) for a, b in zip(*outputs, strict=True)):
        return "the second answer differs from the first"
    return outputs[0]


def test_other_peoples_models_answer_as_the_raw_interpreter_does(
    launch: type[Running], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = launch(tmp_path)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    files = tmp_path / "files"
    files.mkdir()
    seen: set[str] = set()
    for path in collections(files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        outcome = raw(path, tmp_path / "answer")
        kind = "the runtime itself crashes"
        if isinstance(outcome, str):
            kind = "the runtime itself refuses it"
            refused = served(running, path, None)
            if isinstance(refused, str) and "internal error" in refused:
                wrong.append(f"{path.name}: {refused}")
        elif outcome is not None:
            answer = served(running, path, outcome[0])
            if isinstance(answer, str):
                kind = "refused although it runs"
                wrong.append(f"{path.name}: {answer}")
            elif outcome[1] is None:
                kind = "random by design"
            elif len(answer) == len(outcome[1]) and all(equal(a, b) for a, b in zip(answer, outcome[1], strict=True)):
                kind = "served and equal"
            else:
                kind = "served but different"
                wrong.append(f"{path.name}: {[a.shape for a in answer]} {[a.shape for a in outcome[1]]}")
        counts[kind] += 1
        print(f"{kind}: {path.name}")
    running.stop()
    with capsys.disabled():
        print(f"\n{sum(counts.values())} files: " + ", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
    assert not wrong, "\n".join(wrong)
