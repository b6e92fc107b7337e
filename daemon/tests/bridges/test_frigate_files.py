"""Frigate's own plug-in files, unmodified, against the bridge and the DeepStack dialect: every version that can be had.

`EDGEAI_FRIGATE` names a checkout or bare copy of github.com/blakeblackshear/frigate. Each plug-in runs with Frigate's
`detection_api.py` beside it; `detector_config.py`, which imports most of Frigate, is a few lines of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED

from ..support.addresses import forwarded
from ..support.daemon import Running
from ..support.environments import environment

pytestmark = pytest.mark.slow
pytest.importorskip("zmq", reason="pyzmq is not installed")

#: The last of each series; `dev` is what becomes the next one.
VERSIONS = ("v0.16.4", "v0.17.2", "v0.18.0-beta1", "dev")
SCENES = EMBEDDED / "digit-scenes" / "1"
#: Frigate's own time-out of a request.
TIMEOUT_MS = 200
REQUESTS = 200

CONFIG = """
from enum import Enum
from pydantic import BaseModel, ConfigDict

class ModelTypeEnum(str, Enum):
    ssd = "ssd"
    yologeneric = "yolo-generic"

class BaseDetectorConfig(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True, protected_namespaces=())
    type: str = ""
    model: object = None
"""

PROGRAM = """
import json, statistics, sys, time
from types import SimpleNamespace
import numpy as np
from frigate.detectors.detector_config import ModelTypeEnum

kind, address, tensor, requests = sys.argv[1], sys.argv[2], np.load(sys.argv[3]), int(sys.argv[4])
labels = {n: str(n) for n in range(10)}
model = SimpleNamespace(path="/config/digits.onnx", model_type=ModelTypeEnum.ssd, height=tensor.shape[1],
                        width=tensor.shape[2], merged_labelmap=labels)
if kind == "zmq":
    from frigate.detectors.plugins.zmq_ipc import ZmqDetectorConfig as Config, ZmqIpcDetector as Detector
    config = Config(type="zmq", endpoint=address, model=model)
else:
    from frigate.detectors.plugins.deepstack import DeepstackDetectorConfig as Config, DeepStack as Detector
    config = Config(type="deepstack", api_url=address, api_timeout=2.0, model=model)
detector = Detector(config)
times, answers = [], []
for _ in range(requests):
    started = time.perf_counter()
    answers.append(np.array(detector.detect_raw(tensor)))
    times.append((time.perf_counter() - started) * 1e3)
seen = [a for a in answers if a.any()]
print(json.dumps({"median": statistics.median(times), "worst": max(times), "empty": requests - len(seen),
                  "rows": seen[-1].tolist() if seen else [], "same": all((a == seen[0]).all() for a in seen)}))
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A daemon that finds digits, and where Frigate's two plug-ins reach it."""

    running: Running
    zmq: str
    deepstack: str


@pytest.fixture(scope="module")
def served(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("frigate")
    running = launch(directory, '[dialects]\ndeepstack = true\nmodel = "digit-scenes"\n')
    endpoint = f"ipc://{directory}/zmq"
    command = [sys.executable, "-m", "edgeaid.bridges.frigate", "digit-scenes", "--endpoint", endpoint]
    bridge = subprocess.Popen([*command, "--socket", str(running.socket)])
    with forwarded(running) as address:
        yield Served(running, endpoint, f"http://{address}/v1/vision/detection")
    bridge.terminate()
    bridge.wait(10)
    assert running.stop() == 0, running.log.read_text()


def source(version: str, path: str) -> str:
    """A file of one of Frigate's versions. Skips the test where it cannot be had."""
    place = os.environ.get("EDGEAI_FRIGATE", "")
    if not place:
        pytest.skip("set EDGEAI_FRIGATE to a copy of github.com/blakeblackshear/frigate")
    shown = subprocess.run(
        ["git", "-C", place, "show", f"{version}:{path}"], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        pytest.skip(f"{version} has no {path} here")
    return shown.stdout


def run(directory: Path, version: str, kind: str, plugin: str, address: str, tensor: np.ndarray) -> dict[str, Any]:
    """What a version's plug-in makes of a tensor, asked again and again."""
    plugins = directory / "frigate" / "detectors" / "plugins"
    plugins.mkdir(parents=True)
    for package in (plugins, plugins.parent, plugins.parent.parent):
        (package / "__init__.py").touch()
    (plugins / f"{plugin}.py").write_text(source(version, f"frigate/detectors/plugins/{plugin}.py"))
    (plugins.parent / "detection_api.py").write_text(source(version, "frigate/detectors/detection_api.py"))
    (plugins.parent / "detector_config.py").write_text(CONFIG)
    (directory / "program.py").write_text(PROGRAM)
    np.save(directory / "tensor.npy", tensor)
    python = environment("numpy<3", "pydantic==2.11.7", "pyzmq==27.0.0", "requests==2.32.4", "pillow==11.3.0")
    command = [str(python / "bin" / "python"), "program.py", kind, address, "tensor.npy", str(REQUESTS)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"Frigate {version} {plugin}: median {answer['median']:.1f} ms, worst {answer['worst']:.1f} ms, "
        f"{answer['empty']} of {REQUESTS} without an answer in {TIMEOUT_MS} ms"
    )
    return answer


@pytest.mark.parametrize("form", ["as the model takes it", "unsigned", "channels first"])
@pytest.mark.parametrize("version", VERSIONS)
def test_frigates_zmq_plugin_gets_detections_within_its_time(
    served: Served, tmp_path: Path, version: str, form: str
) -> None:
    scene = np.load(SCENES / "golden" / "0.in.npy")
    tensor = {"unsigned": scene.view(np.uint8) ^ 0x80, "channels first": scene.transpose(0, 3, 1, 2)}.get(form, scene)
    answer = run(tmp_path, version, "zmq", "zmq_ipc", served.zmq, np.ascontiguousarray(tensor))
    with served.running.client() as client:
        expected = client.detect_tensor("digit-scenes", scene.tobytes())["objects"]
    rows = [row for row in answer["rows"] if row[1] > 0]
    assert sorted(int(row[0]) for row in rows) == sorted(o["index"] for o in expected)[: len(rows)]
    assert len(rows) == min(len(expected), 20)
    assert answer["same"]
    assert answer["median"] < TIMEOUT_MS


@pytest.mark.parametrize("version", VERSIONS)
def test_frigates_deepstack_plugin_gets_detections(served: Served, tmp_path: Path, version: str) -> None:
    from PIL import Image

    picture = np.asarray(Image.open(sorted((SCENES / "samples").glob("*.png"))[0]).convert("RGB"))
    answer = run(tmp_path, version, "deepstack", "deepstack", served.deepstack, picture[None])
    assert any(row[1] > 0.4 for row in answer["rows"])
    assert answer["empty"] == 0
