"""Peers with the same runtime behind them, each in its own process: MLServer, LitServe, PyTriton, and one file of Flask
or of FastAPI as people write it.

Their environments are given by the paths of their interpreters; a peer is run by the first that has it:

python3 -m venv /tmp/peers && /tmp/peers/bin/pip install mlserver litserve flask fastapi uvicorn ai-edge-litert
/usr/bin/python3 -m venv /tmp/triton && /tmp/triton/bin/pip install nvidia-pytriton ai-edge-litert

PyTriton wants an interpreter with a shared library, as Debian's is. Not among them: OpenVINO Model Server and
TensorFlow Serving. Both come as containers and from repositories of their own; neither is in PyPI or Debian.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from ai_edge_litert.interpreter import Interpreter
import numpy as np

class Bench(MLModel):
    async def load(self):
        self.interpreter = Interpreter(self._settings.parameters.uri, num_threads=1)
        self.interpreter.allocate_tensors()
        self.given = self.interpreter.get_input_details()[0]
        self.wanted = self.interpreter.get_output_details()[0]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        data = NumpyCodec.decode_input(payload.inputs[0])
        self.interpreter.set_tensor(self.given["index"], data.astype(self.given["dtype"], copy=False))
        self.interpreter.invoke()
        out = self.interpreter.get_tensor(self.wanted["index"])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("out", out)])
"""

LITSERVE = """
import base64
import sys
import litserve
import numpy as np
from ai_edge_litert.interpreter import Interpreter

class Bench(litserve.LitAPI):
    def setup(self, device):
        self.interpreter = Interpreter(sys.argv[1], num_threads=1)
        self.interpreter.allocate_tensors()
        self.given = self.interpreter.get_input_details()[0]
        self.wanted = self.interpreter.get_output_details()[0]

    def decode_request(self, request):
        return np.frombuffer(base64.b64decode(request["data"]), self.given["dtype"]).reshape(self.given["shape"])

    def predict(self, data):
        self.interpreter.set_tensor(self.given["index"], data)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.wanted["index"])

    def encode_response(self, out):
        return {"out": base64.b64encode(out.tobytes()).decode()}

if __name__ == "__main__":
    server = litserve.LitServer(Bench(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False)
"""

FLASK = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler

WSGIRequestHandler.protocol_version = "HTTP/1.1"  # keeps the connection, as the others do
app = Flask(__name__)
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

@app.post("/predict")
def predict():
    data = np.frombuffer(request.get_data(), given["dtype"]).reshape(given["shape"])
    interpreter.set_tensor(given["index"], data)
    interpreter.invoke()
    return jsonify(interpreter.get_tensor(wanted["index"]).tolist())

app.run("127.0.0.1", int(sys.argv[2]), threaded=False)
"""

FASTAPI = """
import sys
import numpy as np
import uvicorn
from ai_edge_litert.interpreter import Interpreter
from fastapi import FastAPI, Request

app = FastAPI()
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

@app.post("/predict")
async def predict(request: Request):
    data = np.frombuffer(await request.body(), given["dtype"]).reshape(given["shape"])
    interpreter.set_tensor(given["index"], data)
    interpreter.invoke()
    return interpreter.get_tensor(wanted["index"]).tolist()

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""

PYTRITON = """
import sys
from ai_edge_litert.interpreter import Interpreter
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

def infer(requests):
    answers = []
    for request in requests:
        interpreter.set_tensor(given["index"], request.data["in"])
        interpreter.invoke()
        answers.append({"out": interpreter.get_tensor(wanted["index"])})
    return answers

def tensor(name, details):
    return Tensor(name=name, dtype=details["dtype"], shape=tuple(map(int, details["shape"])))

address = TritonConfig(http_address="127.0.0.1", http_port=int(sys.argv[2]), allow_grpc=False, allow_metrics=False)
with Triton(config=address) as triton:
    triton.bind(model_name="bench", infer_func=infer, inputs=[tensor("in", given)], outputs=[tensor("out", wanted)],
                config=ModelConfig(batching=False))
    triton.serve()
"""


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _post(port: int, path: str, body: bytes, headers: dict[str, str]) -> Callable[[], None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def once() -> None:
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            connection.close()  # idle for some seconds while the others started: theirs to close
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise RuntimeError(data[:300])

    return once


def _start(stack: ExitStack, command: list[str], directory: Path, once: Callable[[], None]) -> None:
    log = stack.enter_context((directory / "log").open("wb"))
    process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, start_new_session=True)

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(20)
                return

    stack.callback(stop)
    until = time.monotonic() + 120
    while True:
        try:
            once()
            return
        except (OSError, RuntimeError, http.client.HTTPException):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError((directory / "log").read_text()[-2000:]) from None
            once.__closure__[1].cell_contents.close()  # type: ignore[index]  # the connection, for another try
            time.sleep(0.3)


JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server, and what it is asked."""

    #: Without which an interpreter cannot run it.
    module: str
    #: Of `bench.py`, which is called with the model's path and a port; a peer without arguments reads `settings.json`.
    program: str
    path: str
    body: bytes
    headers: dict[str, str]


def peers(data: Any) -> dict[str, Peer]:
    """By the names of their rows."""
    tensor = {"name": "in", "datatype": "UINT8", "shape": list(data.shape)}
    listed = json.dumps({"inputs": [{**tensor, "data": data.ravel().tolist()}]}).encode()
    packed = json.dumps({"data": base64.b64encode(data.tobytes()).decode()}).encode()
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": data.nbytes}}],
            "outputs": [{"name": "out", "parameters": {"binary_data": True}}],
        }
    ).encode()
    binary = {**BYTES, "Inference-Header-Content-Length": str(len(head))}
    raw = data.tobytes()
    return {
        "MLServer JSON": Peer("mlserver", MLSERVER, "/v2/models/bench/infer", listed, JSON),
        "LitServe base64": Peer("litserve", LITSERVE, "/predict", packed, JSON),
        "Flask raw bytes": Peer("flask", FLASK, "/predict", raw, BYTES),
        "FastAPI raw bytes": Peer("fastapi", FASTAPI, "/predict", raw, BYTES),
        "PyTriton binary": Peer("pytriton", PYTRITON, "/v2/models/bench/infer", head + raw, binary),
    }


def _with(module: str, pythons: list[str]) -> str | None:
    """The first interpreter that has a module."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return next(
        (python for python in pythons if subprocess.run([python, "-c", code], check=False).returncode == 0), None
    )


def _mlserver(python: str, directory: Path, model: Path, port: int) -> list[str]:
    """Its command, after its settings were written."""
    settings = {
        "http_port": port,
        "grpc_port": _port(),
        "metrics_port": _port(),
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "debug": False,
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    served = {"name": "bench", "implementation": "bench.Bench", "parameters": {"uri": str(model.resolve())}}
    (directory / "model-settings.json").write_text(json.dumps(served))
    return [str(Path(python).parent / "mlserver"), "start", "."]


def peer_ways(stack: ExitStack, pythons: list[str], model: Path, data: Any) -> dict[str, Callable[[], None]]:
    """One blocking call per peer; one that no interpreter has, or that does not start, is said and left out."""
    top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeai-peers-")))
    ways = {}
    for name, peer in peers(data).items():
        python = _with(peer.module, pythons)
        if python is None:
            print(f"{name}: none of the interpreters has {peer.module}")
            continue
        directory, port = top / peer.module, _port()
        directory.mkdir()
        (directory / "bench.py").write_text(peer.program)
        command = [python, "bench.py", str(model.resolve()), str(port)]
        if peer.module == "mlserver":
            command = _mlserver(python, directory, model, port)
        once = _post(port, peer.path, peer.body, peer.headers)
        try:
            _start(stack, command, directory, once)
        except RuntimeError as error:
            print(f"{name} does not start: {str(error)[-500:]}")
            continue
        ways[name] = once
    return ways
