"""Damaged files of every format: only our own errors come out, whatever is in them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.errors import EdgeaiError
from edgeaid.formats import (
    caffe,
    edgetpu,
    edgetpu_rules,
    kfpkg,
    kmodel,
    ncs,
    onnx,
    openvino,
    tardir,
    tensorflow,
    tflite,
    tflite_metadata,
    zipdir,
)
from edgeaid.formats.detect import KINDS, detect
from edgeaid.toolkit.inspect import as_json, compare, inspect_bytes
from edgeaid.toolkit.inspect_html import page

from .builders import SEEDS
from .damage import damaged

CASES = int(os.environ.get("EDGEAI_FUZZ_CASES", "200000"))


def _tflite(data: bytes) -> None:
    model = tflite.read(data)
    for tensor in model.subgraphs[0].tensors:
        tflite.constant(data, model, tensor)
    for look in (tflite_metadata.metadata, tflite_metadata.labels):
        with suppress(EdgeaiError):
            look(data, model)


def _edgetpu(data: bytes) -> None:
    edgetpu_rules.check(edgetpu.read(data))


def _zip(data: bytes) -> None:
    for entry in zipdir.entries(data):
        zipdir.read(data, entry, 1 << 20)


READERS: dict[str, Callable[[bytes], object]] = {
    "tflite": _tflite,
    "edgetpu": _edgetpu,
    "kmodel-v3": lambda d: kmodel.check(kmodel.read(d)),
    "kmodel-v4": lambda d: kmodel.check(kmodel.read(d)),
    "kmodel-v5": lambda d: kmodel.check(kmodel.read(d)),
    "kfpkg": lambda d: kfpkg.check(kfpkg.read(d)),
    "ncs-v1": lambda d: ncs.check(ncs.read(d)),
    "ncs-v2": lambda d: ncs.check(ncs.read(d)),
    "myriad-blob": ncs.read_blob,
    "openvino-ir": lambda d: openvino.read(d, 32),
    "onnx": onnx.read,
    "tf-graphdef": lambda d: (tensorflow.read_graphdef(d).inputs, tensorflow.read_graphdef(d).outputs),
    "tf-savedmodel": tensorflow.read_saved_model,
    "tf-metagraph": tensorflow.read_meta,
    "tf-checkpoint-index": tensorflow.read_checkpoint_index,
    "caffe-prototxt": caffe.read_prototxt,
    "caffemodel": caffe.read_caffemodel,
    "zip": _zip,
    "tar": tardir.entries,
}
WORDS = {kind: seed() for kind, seed in SEEDS.items()}


def try_reading(kind: str, data: bytes) -> bool:
    """Whether the reader of `kind` took the data; anything but an EdgeaiError escapes."""
    try:
        READERS[kind](data)
    except EdgeaiError:
        return False
    return True


def test_there_is_a_seed_and_a_reader_for_every_kind_of_file() -> None:
    assert set(SEEDS) == set(READERS) == set(KINDS) - {"unknown"}


@pytest.mark.parametrize("kind", SEEDS)
def test_a_seed_is_recognised_and_read(kind: str) -> None:
    assert detect(WORDS[kind]) == kind
    assert try_reading(kind, WORDS[kind])


@pytest.mark.parametrize("kind", SEEDS)
def test_a_file_cut_off_anywhere_gives_only_our_own_errors(kind: str) -> None:
    for end in range(0, len(WORDS[kind]), 1 if len(WORDS[kind]) < 1000 else 7):
        try_reading(kind, WORDS[kind][:end])


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=150, deadline=None)
@given(number=st.integers(0, 2**48))
def test_a_damaged_file_gives_only_our_own_errors(kind: str, number: int) -> None:
    data = damaged(WORDS[kind], number)
    try_reading(kind, data)
    detect(data)


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=50, deadline=None)
@given(noise=st.binary(max_size=400), keep=st.integers(0, 64))
def test_noise_behind_a_true_beginning_gives_only_our_own_errors(kind: str, noise: bytes, keep: int) -> None:
    try_reading(kind, WORDS[kind][:keep] + noise)


@pytest.mark.parametrize("kind", SEEDS)
def test_inspecting_damaged_files_ends_in_a_page_or_in_one_of_our_errors(kind: str) -> None:
    look_closely(kind, range(60))


def look_closely(kind: str, numbers: range) -> int:
    """Inspect damaged files as the command does; returns how many gave a report."""
    good = 0
    for number in numbers:
        try:
            report = inspect_bytes(damaged(WORDS[kind], number), Path("damaged.bin"))
        except EdgeaiError:
            continue
        good += 1
        if good % 8 == 0:  # drawing is slow and sees only what the reader let through
            compare([report, report])
            as_json([report])
            page([report])
    return good


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_many_damaged_files_give_only_our_own_errors(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = WORDS[kind]
    good, worst = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(CASES):
        data = damaged(seed, number)
        start = time.perf_counter()
        good += try_reading(kind, data)
        worst = max(worst, time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    reports = look_closely(kind, range(CASES, CASES + CASES // 40))
    with capsys.disabled():
        print(f"\n{kind}: {CASES} damaged files, {good} still readable, slowest {worst * 1e3:.0f} ms, "
              f"memory +{grown} KiB; {CASES // 40} inspected, {reports} reports")  # fmt: skip
    assert grown < 256 * 1024
