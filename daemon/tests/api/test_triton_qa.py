"""Cases of Triton's own test suites L0_http and L0_client_nobatch that models of TFLite can answer, unmodified but for
the addresses; its models of ONNX are twins of ours with the same names, tensors and shapes.

`EDGEAI_TRITON_SERVER` names a checkout or bare copy of github.com/triton-inference-server/server.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ..support.addresses import Addresses, serving
from ..support.daemon import Running
from ..support.environments import environment
from ..toolkit.tflite_builder import Graph, Op, T, build

pytestmark = pytest.mark.slow

HTTP, NO_BATCH = "L0_http/http_test.py HttpTest", "L0_client_nobatch/client_test.py ClientNoBatchTest"
CASES = [
    *((HTTP, name) for name in (
        "test_raw_binary", "test_raw_binary_longer", "test_content_encoding_unsupported_client",
        "test_inference_header_content_length_out_of_range",
    )),
    *((NO_BATCH, name) for name in (
        "test_nobatch_request_for_batching_model", "test_nobatch_request_for_nonbatching_model",
        "test_batch_request_for_batching_model",
    )),
]  # fmt: skip
#: Case -> why it is not among them.
OTHERS = {
    "test_content_encoding_chunked_manually": "it sends Content-Length beside Transfer-Encoding, which is refused here",
    "test_batch_request_for_nobatching_model": "[1,16] is taken for [16] here, as nothing else can be meant",
    "test_negative_dimensions": "it wants 500 for a request that is wrong",
    "test_load_oversized_file_parameter": "it wants 500 for a request that is wrong",
    **dict.fromkeys(
        ("test_byte_too_many_elements", "test_multi_variable_dimensions", "test_multi_inputs",
         "test_buffer_size_overflow", "test_loading_large_invalid_model", "test_json_recursion_depth_limit",
         "test_duplicate_output_names",
         "test_repository_index_deeply_nested_json"),
        "it compares the words of the refusal",
    ),
    "test_byte": "its model takes one text of any shape",
    "test_descriptive_status_code": "its model waits and has a queue of one",
}  # fmt: skip
#: What it takes from its own collection of helpers.
HELPERS = """
import unittest

TestResultCollector = unittest.TestCase

def get_model_name(prefix, *kinds):
    return prefix
"""


def source(path: str) -> str:
    """A file of Triton's suites. Skips the test where it cannot be had."""
    place = os.environ.get("EDGEAI_TRITON_SERVER", "")
    if not place:
        pytest.skip("set EDGEAI_TRITON_SERVER to a copy of github.com/triton-inference-server/server")
    file = Path(place) / "qa" / path
    if file.is_file():
        return file.read_text()
    shown = subprocess.run(["git", "-C", place, "show", f"HEAD:qa/{path}"], capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip(f"this copy has no qa/{path}")
    return shown.stdout


def identity() -> bytes:
    """INPUT0 float [-1,-1] -> OUTPUT0, the same."""
    shape, any_size = (1, 8), (-1, -1)
    tensors = [T("INPUT0", shape, signature=any_size), T("zero", (1,), data=np.zeros(1, np.float32)),
               T("OUTPUT0", shape, signature=any_size)]  # fmt: skip
    return build(Graph(tensors, [Op("ADD", ["INPUT0", "zero"], ["OUTPUT0"])], ["INPUT0"], ["OUTPUT0"]))


def sums(*batch: int) -> bytes:
    """INPUT0, INPUT1 int32 [*batch,16] -> OUTPUT0 their sum, OUTPUT1 their difference."""
    names = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    tensors = [T(n, (*(1 for _ in batch), 16), "INT32", signature=(*batch, 16)) for n in names]
    operators = [Op("ADD", names[:2], ["OUTPUT0"]), Op("SUB", names[:2], ["OUTPUT1"])]
    return build(Graph(tensors, operators, names[:2], names[2:]))


@pytest.fixture(scope="module")
def server(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A daemon with the models of the suites."""
    models = {"onnx_zero_1_float32": identity(), "onnx": sums(-1), "onnx_nobatch": sums()}
    with serving(launch, tmp_path_factory.mktemp("qa"), models) as addresses:
        yield addresses


@pytest.mark.parametrize(("suite", "case"), CASES)
def test_a_case_passes(server: Addresses, tmp_path: Path, suite: str, case: str) -> None:
    path, group = suite.split()
    text = source(path).replace("localhost:8000", server.http).replace("localhost:8001", server.grpc)
    (tmp_path / "suite.py").write_text(text)
    (tmp_path / "test_util.py").write_text(HELPERS)
    python = environment("tritonclient[http,grpc]==2.73.0", "requests==2.32.4") / "bin" / "python"
    command = [str(python), "-m", "unittest", f"suite.{group}.{case}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.mark.parametrize("suite", [HTTP, NO_BATCH])
def test_every_case_is_tried_or_has_its_reason(suite: str) -> None:
    names = set(re.findall(r"def (test_\w+)", source(suite.split(maxsplit=1)[0])))
    tried = {name for group, name in CASES if group == suite}
    print(f"{suite}: {len(names & tried)} of {len(names)} cases pass, {len(names & set(OTHERS))} cannot")
    assert names <= tried | set(OTHERS)
