"""The daemon in the image answers: inside and from the host, over every socket, and with x86-64's numbers."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import TOP, wait_for

from rig.link import Link

DEFAULTS = TOP / "daemon/src/edgeaid/models/defaults"
#: LSB; LiteRT picks other kernels for a cortex-a53.
TOLERANCE = {"cortex-a53": 12}
USERS = {"watcher": "edgeai-observe", "asker": "edgeai-infer", "keeper": "edgeai-control", "stranger": ""}

ASK = """
import sys
from edgeaid.client import Client
import numpy as np
with Client(fast=sys.argv[1] == "fast") as client:
    shape = [t for t in client.metadata("digits")["inputs"]][0]["shape"]
    meta = client.metadata("digits")["inputs"][0]
    kind = {"UINT8": np.uint8, "INT8": np.int8, "FP32": np.float32}[meta["datatype"]]
    image = (np.arange(int(np.prod([abs(d) for d in meta["shape"]]))) * 31 % 256).astype(np.uint8).view(np.int8 if kind is np.int8 else np.uint8).astype(kind).reshape([abs(d) for d in meta["shape"]])
    answer = client.infer("digits", image)
    first = next(iter(dict(answer.outputs if hasattr(answer, "outputs") else answer).values()))
    print(first.ravel().tolist())
"""

ROLES = """
import json
from edgeaid import errors
from edgeaid.client import Client
found = {}
with Client(fast=False) as client:
    for name, call in (("observe", lambda: client.get("/v2/models/digits")), ("infer", lambda: client.classify("digits", open("/run/three.png", "rb").read())), ("control", lambda: client.load("digits"))):
        try:
            call()
            found[name] = "yes"
        except errors.EdgeaiError as error:
            found[name] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture(scope="module", autouse=True)
def users(guest: Link) -> None:
    """Four users: one per role, and one without any."""
    for name, group in USERS.items():
        guest.run(f"id {name} 2>/dev/null || useradd -M {'-G ' + group if group else ''} {name}").check()
    sample = next((DEFAULTS / "digits/1/samples").glob("*.png"), None)
    assert sample is not None
    guest.put("/run/three.png", sample.read_bytes())


def test_default_models_are_ready(edgeai_socket: Path) -> None:
    from edgeaid.client import Client

    with Client(edgeai_socket, fast=False) as client:
        names = {model["name"] for model in wait_for(client.models, 60, "models")}
        assert {"digits", "digit-scenes"} <= names
        for name in ("digits", "digit-scenes"):
            client.request("GET", f"/v2/models/{name}/ready")


def test_host_classifies_a_picture_through_the_forwarded_socket(edgeai_socket: Path) -> None:
    from edgeaid.client import Client

    with Client(edgeai_socket, fast=False) as client:
        for sample in sorted((DEFAULTS / "digits/1/samples").glob("*.png"))[:3]:
            found = client.classify("digits", sample.read_bytes())
            assert found["classes"][0]["label"] == sample.stem.split("-")[-1]


def test_host_detects_objects_through_the_forwarded_socket(edgeai_socket: Path) -> None:
    from edgeaid.client import Client

    folder = DEFAULTS / "digit-scenes/1/samples"
    with Client(edgeai_socket, fast=False) as client:
        found = client.detect("digit-scenes", (folder / "scene-1.png").read_bytes())
    assert next(value for value in found.values() if isinstance(value, list))


@pytest.mark.parametrize("way", ["http", "fast"])
def test_answers_equal_those_of_this_computer(guest: Link, request: pytest.FixtureRequest, way: str) -> None:
    out = guest.python(ASK, way, user="asker").check()
    there = np.array(json.loads(out))
    here = _on_this_computer()
    assert there.shape == here.shape
    assert np.abs(there - here).max() <= TOLERANCE.get(request.config.getoption("--cpu"), 2)


def _on_this_computer() -> np.ndarray:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(
        str(DEFAULTS / "digits/1/model.tflite"), num_threads=1
    )
    interpreter.allocate_tensors()
    spec = interpreter.get_input_details()[0]
    values = (np.arange(int(np.prod(spec["shape"]))) * 31 % 256).astype(np.uint8)
    values = values.view(np.int8) if spec["dtype"] is np.int8 else values.astype(spec["dtype"])
    interpreter.set_tensor(spec["index"], values.reshape(spec["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel().astype(float)


@pytest.mark.parametrize(
    ("user", "may"),
    [
        ("watcher", {"observe"}),
        ("asker", {"observe", "infer"}),
        ("keeper", {"observe", "infer", "control"}),
        ("stranger", set()),
    ],
)
def test_role_of_a_user_is_enforced(guest: Link, user: str, may: set[str]) -> None:
    found = json.loads(guest.python(ROLES, user=user).check())
    assert {name for name, answer in found.items() if answer == "yes"} == may
    assert {answer for answer in found.values() if answer != "yes"} <= {"PermissionDenied"}


def test_denial_is_in_the_journal_with_the_callers_uid(guest: Link) -> None:
    uid = guest.run("id -u stranger").check().strip()
    lines = guest.run("journalctl -u edgeaid -o json MESSAGE_ID=ed5d52beb0484dff976dd57d1a8a7574").check().splitlines()
    assert uid in {json.loads(line).get("EDGEAI_UID") for line in lines}


def test_killed_worker_under_load_is_replaced_and_requests_go_on(guest: Link, edgeai_socket: Path) -> None:
    from edgeaid import errors
    from edgeaid.client import Client

    picture = next((DEFAULTS / "digits/1/samples").glob("*.png")).read_bytes()
    good, retryable, other = [], [], []
    stop = threading.Event()

    def ask() -> None:
        with Client(edgeai_socket, fast=False) as client:
            while not stop.is_set():
                try:
                    good.append(client.classify("digits", picture))
                except errors.Unavailable as error:
                    retryable.append(error)
                except errors.EdgeaiError as error:
                    other.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(good) > 3, 120, "answers before the kill")
        killed = guest.run("pgrep -f edgeaid.worker | head -1 | xargs kill -KILL")
        assert killed.code == 0, killed.err
        before = len(good)
        wait_for(lambda: len(good) > before + 5, 180, "answers after the kill")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert other == []
    assert guest.run("journalctl -u edgeaid MESSAGE_ID=2e849499a4ba4eb7a8474ffb5f962a3c -o cat").out
