"""Triton's own test suites, unmodified but for the addresses, as far as models of TFLite can answer them; its models of
ONNX are twins of ours with the same names, tensors and shapes.

`EDGEAI_TRITON_SERVER` names a checkout or bare copy of github.com/triton-inference-server/server.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeaid.api import model_config
from edgeaid.errors import InvalidRequest

from ..support import tflite
from ..support.addresses import Addresses, serving
from ..support.daemon import Running
from ..support.environments import environment
from ..toolkit.tflite_builder import Graph, Op, T, build

pytestmark = pytest.mark.slow

STATUS = "it wants 500 for a request that is wrong"
POLLING = "its server polls the repository and refuses to load"


@dataclass(frozen=True, slots=True)
class Suite:
    """One class of one file; every case passes but those with a reason."""

    file: str
    group: str
    #: Case -> why it cannot pass here.
    cannot: Mapping[str, str] = field(default_factory=dict)
    #: How many models it counts in its repository; 0 = it does not count them.
    models: int = 0


SUITES = [
    Suite(
        "L0_http/http_test.py", "HttpTest",
        {
            "test_content_encoding_chunked_manually": "it sends Content-Length beside Transfer-Encoding, refused here",
            "test_negative_dimensions": STATUS,
            "test_load_oversized_file_parameter": STATUS,
            "test_loading_large_invalid_model": "it takes 5 GB of memory for itself",
            "test_repository_index_deeply_nested_json": "half a megabyte is more than this route takes: 413",
            "test_descriptive_status_code": "its first request runs, its second waits; in Triton the first one waits",
        },
    ),
    Suite(
        "L0_client_nobatch/client_test.py", "ClientNoBatchTest",
        {"test_batch_request_for_nobatching_model": "[1,16] is taken for [16] here, as nothing else can be meant"},
    ),
    Suite(
        "L0_http/python_http_aio_test.py", "TestHttpAioClient",
        {"test_load_model": POLLING, "test_unload_model": POLLING},
        models=7,
    ),
    Suite(
        "L0_grpc/python_grpc_aio_test.py", "TestGrpcAioClient",
        {
            "test_load_model": POLLING,
            "test_unload_model": POLLING,
            "test_register_system_shared_memory": "it wants INTERNAL for a key that does not exist",
            "test_register_cuda_shared_memory": "it compares the words of a refusal; there is no CUDA here",
        },
        models=8,
    ),
    Suite("L0_logging/logging_endpoint_test.py", "LogEndpointTest"),
    Suite(
        "L0_http/http_request_many_chunks.py", "HTTPRequestManyChunksTest",
        {"test_chunked_infer_over_max_chunks_reject_with_bounded_rss_growth": "it sends a hundred million chunks"},
    ),
    Suite("L0_string_io/string_client_test.py", "ClientStringTest"),
    Suite("L0_scalar_io/scalar_test.py", "ScalarIOTest"),
    Suite("L0_parameters/class_count_test.py", "ClassificationParameterTest"),
]  # fmt: skip
CONFIG = 'name = "triton"\ngrpc_role = "control"\n'
#: What the suites take from their own collection of helpers.
HELPERS = """
import unittest

MIB = 1 << 20
TestResultCollector = unittest.TestCase
get_server_process_from_env = wait_for_stable_rss = None

def get_model_name(prefix, *kinds):
    return prefix
"""


def place() -> Path:
    """The copy of Triton's repository. Skips the test where there is none."""
    named = os.environ.get("EDGEAI_TRITON_SERVER", "")
    if not named:
        pytest.skip("set EDGEAI_TRITON_SERVER to a copy of github.com/triton-inference-server/server")
    return Path(named)


def source(path: str) -> str:
    """A file of Triton's repository, from a checkout or a bare copy. Skips the test where it cannot be had."""
    if (place() / path).is_file():
        return (place() / path).read_text(errors="replace")
    command = ["git", "-C", str(place()), "show", f"HEAD:{path}"]
    shown = subprocess.run(command, capture_output=True, check=False)
    if shown.returncode:
        pytest.skip(f"this copy has no {path}")
    return shown.stdout.decode(errors="replace")


def configurations() -> list[str]:
    """Paths of the configurations of Triton's models, those of its tests and examples."""
    command = ["git", "-C", str(place()), "ls-tree", "-r", "--name-only", "HEAD"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in listed if path.endswith("config.pbtxt")]


def identity(*signature: int, kind: str = "FP32", name: str = "INPUT0") -> bytes:
    """INPUT0 of a shape -> OUTPUT0, the same."""
    now = tuple(8 if d < 0 and i else 1 if d < 0 else d for i, d in enumerate(signature))
    output = name.replace("INPUT", "OUTPUT")
    made = "FP32" if kind == "FP16" else kind
    tensors = [T(name, now, kind, signature=signature), T(output, now, made, signature=signature)]
    if kind == "FP16":
        return build(Graph(tensors, [Op("CAST", [name], [output])], [name], [output]))
    zero = T("zero", (1,), kind, data=0)
    return build(Graph([*tensors, zero], [Op("ADD", [name, "zero"], [output])], [name], [output]))


def threefold() -> bytes:
    """INPUT0 to INPUT2 float [1,8] -> OUTPUT0, the sum of two."""
    names = ("INPUT0", "INPUT1", "INPUT2", "OUTPUT0")
    return build(Graph([T(n, (1, 8)) for n in names], [Op("ADD", names[:2], names[3:])], names[:3], names[3:]))


def sums(*batch: int) -> bytes:
    """INPUT0, INPUT1 int32 [*batch,16] -> OUTPUT0 their sum, OUTPUT1 their difference."""
    names = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    tensors = [T(n, (*(1 for _ in batch), 16), "INT32", signature=(*batch, 16)) for n in names]
    operators = [Op("ADD", names[:2], ["OUTPUT0"]), Op("SUB", names[:2], ["OUTPUT1"])]
    return build(Graph(tensors, operators, names[:2], names[2:]))


def models() -> dict[str, bytes]:
    """Twins of the suites' models, by name."""
    texts = ("onnx_zero_1_object", "onnx_nobatch_zero_1_object", "string_identity")
    return {
        "onnx_zero_1_float32": identity(-1, -1),
        "onnx_zero_1_float16": identity(-1, -1, -1, kind="FP16"),
        "onnx_zero_3_float32": threefold(),
        "onnx_zero_1_object_1_element": tflite.echo(1),
        **{name: tflite.echo(-1) for name in texts},
        "onnx": sums(-1),
        "onnx_nobatch": sums(),
        "simple": tflite.sum_and_difference(),
        "onnx_scalar_1dim": identity(1, name="INPUT"),
        "onnx_scalar_2dim": identity(1, 1, name="INPUT"),
        "identity_fp32": identity(-1, -1),
        "identity_bytes": tflite.echo(1, 8),
        "simple_identity": tflite.echo(1, 1),
        "simple_identity_int64": identity(1, 1, kind="INT64"),
    }


@pytest.fixture(scope="module")
def server(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A daemon with the models of the suites, which calls itself as they want it."""
    config = f"{CONFIG}[shared_memory]\nenabled = true\n"
    # More than the million values that one of the suites sends.
    room = {"identity_fp32": "room = 16777216"}
    with serving(launch, tmp_path_factory.mktemp("qa"), models(), config, room) as addresses:
        yield addresses


@contextmanager
def counted(launch: type[Running], directory: Path, number: int) -> Iterator[Addresses]:
    """A daemon with `number` models, one of them called simple, and no others."""
    names = ("simple", *(f"another_{n}" for n in range(1, number)))
    config = f"{CONFIG}[models]\nembedded = false\n"
    with serving(launch, directory, dict.fromkeys(names, models()["simple"]), config) as addresses:
        yield addresses


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.file)
def test_every_case_of_a_suite_passes_or_has_its_reason(
    launch: type[Running], server: Addresses, tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    text = source(f"qa/{suite.file}")
    with counted(launch, tmp_path, suite.models) if suite.models else nullcontext(server) as addresses:
        done, names = run(suite, text, addresses, tmp_path)
    failed = re.findall(r"^(?:FAIL|ERROR): (\w+)", done.stderr, re.MULTILINE)
    with capsys.disabled():
        print(f"\n{suite.file}: {len(names) - len(suite.cannot) - len(failed)} of {len(names)} cases pass")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-6000:]
    assert set(suite.cannot) <= set(names)


def run(
    suite: Suite, text: str, server: Addresses, tmp_path: Path
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The cases of a suite that can pass, run in an environment of their own; and the names of all."""
    port = server.http.rpartition(":")[2]
    text = text.replace("localhost:8000", server.http).replace("localhost:8001", server.grpc)
    (tmp_path / "suite.py").write_text(re.sub(r"_http_port = 8000", f"_http_port = {port}", text))
    (tmp_path / "test_util.py").write_text(HELPERS)
    names = re.findall(r"def (test_\w+)", text)
    python = environment("tritonclient[http,grpc]==2.73.0", "requests==2.32.4") / "bin" / "python"
    cases = [f"suite.{suite.group}.{name}" for name in names if name not in suite.cannot]
    command = [str(python), "-m", "unittest", *cases]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False), names


@pytest.mark.parametrize("proto_names", [True, False])
def test_the_configurations_of_tritons_own_models_are_taken(
    *, proto_names: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
    from google.protobuf import json_format, text_format

    taken = 0
    refused = []
    for path in configurations():
        config = messages.ModelConfig()
        try:
            text_format.Parse(source(path), config)
        except text_format.ParseError:
            continue  # some are wrong on purpose
        try:
            model_config.read(json_format.MessageToJson(config, preserving_proto_field_name=proto_names))
            taken += 1
        except InvalidRequest as error:
            refused.append(f"{path}: {error}")
    with capsys.disabled():
        print(f"\n{taken} configurations of Triton's are taken, {len(refused)} refused")
    assert taken > 400
    assert all("negative_max_batch_size" in said for said in refused), refused
