"""edgeaid-frigate@.service under its walls: Frigate's requests are answered on the socket that it opens."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ..support.waiting import eventually
from .conftest import PLACE, Container

pytestmark = pytest.mark.root
pytest.importorskip("zmq", reason="pyzmq is not installed")

UNIT = "edgeaid-frigate@digit-scenes.service"
PROGRAM = """#!/bin/sh
export PYTHONPATH=/usr/lib/edgeaid-test/src:/usr/lib/edgeaid-test/site
exec /usr/bin/python3 -m edgeaid.bridges.frigate "$@"
"""
SCENE = f"{PLACE}/src/edgeaid/models/defaults/digit-scenes/1/golden/0.in.npy"
#: Prints how many objects Frigate is told of.
ASK = f"""
import json
import numpy as np
import zmq
socket = zmq.Context.instance().socket(zmq.REQ)
socket.setsockopt(zmq.RCVTIMEO, 60_000)
socket.setsockopt(zmq.LINGER, 0)
socket.connect("ipc:///run/edgeai-frigate/digit-scenes")
scene = np.load({SCENE!r})
header = {{"shape": list(scene.shape), "dtype": str(scene.dtype), "model_type": "ssd"}}
socket.send_multipart([json.dumps(header).encode(), scene.tobytes()])
(reply,) = socket.recv_multipart()
print(int((np.frombuffer(reply, np.float32).reshape(20, 6)[:, 1] > 0).sum()))
"""


@pytest.fixture
def started(container: Container) -> Iterator[Container]:
    container.run("tee", "/usr/bin/edgeai-frigate", stdin=PROGRAM)
    container.run("chmod", "755", "/usr/bin/edgeai-frigate")
    container.run("systemctl", "start", "edgeaid.service", timeout=180)
    container.run("systemctl", "start", UNIT)
    yield container
    container.run("systemctl", "stop", UNIT)


def test_frigate_is_told_of_the_objects_in_a_picture(started: Container) -> None:
    # zeros while the model is not loaded yet
    eventually(lambda: json.loads(started.python(ASK, check=False, timeout=120).stdout or "0") > 0, 180, "an answer")
    assert started.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
