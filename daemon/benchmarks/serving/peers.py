"""Peers with the same runtime behind them: MLServer, LitServe and a one-file Flask server, each in its own process.

Their environment is given by the path of its interpreter:

python3 -m venv /tmp/peers && /tmp/peers/bin/pip install mlserver litserve flask ai-edge-litert
"""

from __future__ import annotations

import base64
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


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _post(port: int, path: str, body: bytes, content_type: str) -> Callable[[], None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def once() -> None:
        try:
            connection.request("POST", path, body, {"Content-Type": content_type})
            response = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            connection.close()  # idle for some seconds while the others started: theirs to close
            connection.request("POST", path, body, {"Content-Type": content_type})
            response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise RuntimeError(data[:300])

    return once


def _start(stack: ExitStack, command: list[str], directory: Path, once: Callable[[], None]) -> None:
    log = stack.enter_context((directory / "log").open("wb"))
    process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, start_new_session=True)

    def stop() -> None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)

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


def peer_ways(stack: ExitStack, python: str, model: Path, data: Any) -> dict[str, Callable[[], None]]:
    """One blocking call per peer."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeai-peers-")))
    ml, lit, flask = directory / "ml", directory / "lit", directory / "flask"
    for place in (ml, lit, flask):
        place.mkdir()
    ports = [_port() for _ in range(5)]
    (ml / "bench.py").write_text(MLSERVER)
    (ml / "settings.json").write_text(
        json.dumps(
            {
                "http_port": ports[0],
                "grpc_port": ports[1],
                "metrics_port": ports[2],
                "host": "127.0.0.1",
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    settings = {"name": "bench", "implementation": "bench.Bench", "parameters": {"uri": str(model.resolve())}}
    (ml / "model-settings.json").write_text(json.dumps(settings))
    (lit / "bench.py").write_text(LITSERVE)
    (flask / "bench.py").write_text(FLASK)
    request = {
        "inputs": [{"name": "in", "datatype": "UINT8", "shape": list(data.shape), "data": data.ravel().tolist()}]
    }
    packed = {"data": base64.b64encode(data.tobytes()).decode()}
    ways = {
        "MLServer JSON": _post(ports[0], "/v2/models/bench/infer", json.dumps(request).encode(), "application/json"),
        "Flask raw bytes": _post(ports[4], "/predict", data.tobytes(), "application/octet-stream"),
        "LitServe base64": _post(ports[3], "/predict", json.dumps(packed).encode(), "application/json"),
    }
    bin_ = Path(python).parent
    _start(stack, [str(bin_ / "mlserver"), "start", "."], ml, ways["MLServer JSON"])
    _start(stack, [python, "bench.py", str(model.resolve()), str(ports[3])], lit, ways["LitServe base64"])
    _start(stack, [python, "bench.py", str(model.resolve()), str(ports[4])], flask, ways["Flask raw bytes"])
    return ways
