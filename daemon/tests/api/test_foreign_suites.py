"""Clients of other projects, unmodified and from PyPI, against a running daemon: KServe's, the protocol's own generated
one, MLServer's command line, DOODS' and DeepStack's. Each is installed into an environment of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeaid.models.repository import EMBEDDED

from ..support import tflite
from ..support.addresses import Addresses, serving
from ..support.daemon import Running
from ..support.environments import environment

pytestmark = pytest.mark.slow

SCENE = EMBEDDED / "digit-scenes" / "1" / "samples" / "scene-1.png"


@pytest.fixture(scope="module")
def server(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A daemon that serves `simple` (INPUT0, INPUT1 -> sum, difference) and finds digits."""
    models = {"simple": tflite.sum_and_difference()}
    config = "[dialects]\ndeepstack = true\ndoods = true\n"
    with serving(launch, tmp_path_factory.mktemp("suites"), models, config) as addresses:
        yield addresses


def run(directory: Path, place: Path, script: str, *arguments: str) -> str:
    """What a program prints that runs in an environment; it must end well."""
    file = directory / "program.py"
    file.write_text(script)
    command = [str(place / "bin" / "python"), str(file), *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout.strip().splitlines()[-1])
    return done.stdout


KSERVE = """
import asyncio, sys
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig

def request():
    inputs = [InferInput(n, [1, 16], "INT32", data=list(range(16))) for n in ("INPUT0", "INPUT1")]
    return InferRequest(model_name="simple", infer_inputs=inputs)

async def main(http, grpc):
    done = 0
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    base = f"http://{http}"
    assert await client.is_server_live(base); done += 1
    assert await client.is_server_ready(base); done += 1
    assert await client.is_model_ready(base, "simple"); done += 1
    assert not await client.is_model_ready(base, "nothing"); done += 1
    answer = await client.infer(base, request(), model_name="simple")
    assert list(answer.outputs[0].as_numpy().ravel()) == [2 * n for n in range(16)]; done += 1
    await client.close()
    async with InferenceGRPCClient(url=grpc) as client:
        assert await client.is_server_live(); done += 1
        assert await client.is_server_ready(); done += 1
        assert await client.is_model_ready("simple"); done += 1
        assert not await client.is_model_ready("nothing"); done += 1
        answer = await client.infer(infer_request=request())
        assert list(answer.outputs[0].as_numpy().ravel()) == [2 * n for n in range(16)]; done += 1
    print("kserve:", done, "of 10")

asyncio.run(main(*sys.argv[1:]))
"""


def test_kserves_clients_of_rest_and_grpc(server: Addresses, tmp_path: Path) -> None:
    assert "10 of 10" in run(tmp_path, environment("kserve==0.21.0"), KSERVE, server.http, server.grpc)


PROTOCOL = """
import asyncio, sys
import httpx
from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.types import InferenceRequest, RequestInput

tensors = [RequestInput(name=n, shape=[1, 16], datatype="INT32", data=list(range(16))) for n in ("INPUT0", "INPUT1")]
request = InferenceRequest(inputs=tensors)

def checked(answers):
    metadata, model, version, one, other = answers
    assert metadata.name == "edgeaid" and model.name == version.name == "simple"
    for answer in (one, other):
        data = answer.outputs[0].data
        assert list(getattr(data, "root", getattr(data, "__root__", data))) == [2 * n for n in range(16)]

client = OpenInferenceClient(base_url=f"http://{sys.argv[1]}", httpx_client=httpx.Client())
client.check_server_liveness(); client.check_server_readiness()
client.check_model_readiness("simple"); client.check_model_version_readiness("simple", "1")
checked([client.read_server_metadata(), client.read_model_metadata("simple"),
         client.read_model_version_metadata("simple", "1"), client.model_infer("simple", request=request),
         client.model_version_infer("simple", "1", request=request)])

async def main():
    async with httpx.AsyncClient() as connection:
        client = AsyncOpenInferenceClient(base_url=f"http://{sys.argv[1]}", httpx_client=connection)
        await client.check_server_liveness(); await client.check_server_readiness()
        await client.check_model_readiness("simple"); await client.check_model_version_readiness("simple", "1")
        checked([await client.read_server_metadata(), await client.read_model_metadata("simple"),
                 await client.read_model_version_metadata("simple", "1"),
                 await client.model_infer("simple", request=request),
                 await client.model_version_infer("simple", "1", request=request)])

asyncio.run(main())
print("open-inference-openapi: 18 of 18")
"""


def test_the_client_generated_from_the_protocols_description(server: Addresses, tmp_path: Path) -> None:
    packages = environment("open-inference-openapi==2.0.0.1")
    assert "18 of 18" in run(tmp_path, packages, PROTOCOL, server.http)


DETECTORS = """
import sys
from deepstack.core import DeepstackObject
from deepstack_sdk import Detection, ServerConfig
from pydoods import PyDOODS

address, file = sys.argv[1:]
picture = open(file, "rb").read()
host, port = address.split(":")
doods = PyDOODS(f"http://{address}")
assert "digit-scenes" in [d["name"] for d in doods.get_detectors()["detectors"]]
seen = doods.detect(picture, {"*": 10}, "digit-scenes")["detections"]
assert seen
plain = DeepstackObject(ip=host, port=int(port)).detect(picture)
assert len(plain) >= 1
named = DeepstackObject(ip=host, port=int(port), custom_model="digit-scenes").detect(picture)
assert len(named) == len(plain)
sdk = Detection(ServerConfig(f"http://{address}")).detectObject(picture)
assert [d.label for d in sdk.detections]
custom = Detection(ServerConfig(f"http://{address}"), name="digit-scenes").detectObject(picture)
assert [d.label for d in custom.detections] == [d.label for d in sdk.detections]
print("pydoods: 2 of 2, deepstack-python: 2 of 2, deepstack-sdk: 2 of 2")
"""


def test_the_clients_of_doods_and_deepstack(server: Addresses, tmp_path: Path) -> None:
    packages = environment("pydoods==1.0.2", "deepstack-python==0.9", "deepstack-sdk==0.2.1")
    assert "deepstack-sdk: 2 of 2" in run(tmp_path, packages, DETECTORS, server.http, str(SCENE))


MLSERVER = """
import json, subprocess, sys
from pathlib import Path

tensors = [{"name": n, "shape": [1, 16], "datatype": "INT32", "data": list(range(16))} for n in ("INPUT0", "INPUT1")]
Path("in.jsonl").write_text("".join(json.dumps({"inputs": tensors}) + "\\n" for _ in range(20)))
program = str(Path(sys.executable).with_name("mlserver"))
files = ["--input-data-path", "in.jsonl", "--output-data-path", "out.jsonl"]
subprocess.run([program, "infer", "--url", sys.argv[1], "--model-name", "simple", *files, "--workers", "4"], check=True)
rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
good = sum(row["outputs"][0]["data"] == [2 * n for n in range(16)] for row in rows)
print("mlserver infer:", good, "of 20 requests")
"""


def test_mlservers_command_line(server: Addresses, tmp_path: Path) -> None:
    """Its program knows REST only."""
    assert "20 of 20" in run(tmp_path, environment("mlserver==1.7.1"), MLSERVER, server.http)
