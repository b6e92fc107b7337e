"""The daemon in the image answers: inside and from the host, over every socket, and with x86-64's numbers."""

from __future__ import annotations

import json
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest

from boot.conftest import CPU, DIGIT, TOP
from rig.link import Link, wait_for

DEFAULTS = TOP / "daemon/src/edgeaid/models/defaults"
MODELS = ("digits", "digit-scenes", "digit-mask")
USERS = {"watcher": "edgeai-observe", "asker": "edgeai-infer", "keeper": "edgeai-control", "stranger": ""}

#: A fixed pattern to every input of a model, by way of the fast socket or of HTTP; all outputs as JSON.
ASK = """
import json, sys
import numpy as np
from edgeaid.client import Client
from edgeaid.tensors import NUMPY
way, model = sys.argv[1:]
with Client(fast=way == "fast", timeout=280) as client:
    given = {}
    for spec in client.metadata(model)["inputs"]:
        shape = [abs(n) for n in spec["shape"]]
        pattern = (np.arange(int(np.prod(shape))) * 31 % 256).astype(np.uint8)
        kind = np.dtype(NUMPY[spec["datatype"]])
        given[spec["name"]] = (pattern.view(kind) if kind.itemsize == 1 else pattern.astype(kind)).reshape(shape)
    answer = client.infer(model, given)
    assert (way == "fast") == bool(answer.timing), answer.timing
    print(json.dumps({name: value.ravel().tolist() for name, value in answer.outputs.items()}))
"""

ROLES = """
import json
from edgeaid import errors
from edgeaid.client import Client
results = {}
with Client(fast=False, timeout=280) as client:
    for name, call in (("observe", lambda: client.get("/v2/models/digits")), ("infer", lambda: client.classify("digits", open("/run/digit.png", "rb").read())), ("control", lambda: client.load("digits"))):
        try:
            call()
            results[name] = "yes"
        except errors.EdgeaiError as error:
            results[name] = type(error).__name__
print(json.dumps(results))
"""


@pytest.fixture(scope="module", autouse=True)
def users(guest: Link) -> None:
    """Four users: one per role, and one without any."""
    for name, group in USERS.items():
        guest.run(f"id {name} 2>/dev/null || useradd -M {'-G ' + group if group else ''} {name}").check()
    guest.put("/run/digit.png", next(DIGIT.glob("*.png")).read_bytes())


def test_default_models_are_ready(edgeai_socket: Path) -> None:
    from edgeaid.client import Client

    with Client(edgeai_socket, fast=False, timeout=280) as client:
        states = {model["name"]: model["state"] for model in wait_for(client.models, 300, "models")}
        assert {name: states.get(name) for name in MODELS} == dict.fromkeys(MODELS, "READY")
        for name in MODELS:
            client.request("GET", f"/v2/models/{name}/ready")


def test_host_classifies_a_picture_through_the_forwarded_socket(edgeai_socket: Path) -> None:
    from edgeaid.client import Client

    with Client(edgeai_socket, fast=False, timeout=280) as client:
        for sample in sorted(DIGIT.glob("*.png"))[:3]:
            assert client.classify("digits", sample.read_bytes()).label == sample.stem.split("-")[-1]


def test_host_detects_objects_through_the_forwarded_socket(edgeai_socket: Path) -> None:
    from edgeaid.client import Client

    directory = DEFAULTS / "digit-scenes/1/samples"
    with Client(edgeai_socket, fast=False, timeout=280) as client:
        assert client.detect("digit-scenes", (directory / "scene-1.png").read_bytes()).objects


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", ["http", "fast"])
def test_answers_equal_those_of_this_computer(guest: Link, way: str, model: str) -> None:
    there = json.loads(guest.python(ASK, way, model, user="asker").check())
    here = _on_this_computer(model)
    tolerance = tomllib.loads((DEFAULTS / model / "1/model.toml").read_text())["tolerance"]
    assert len(there) == len(here)
    for mine, theirs in zip(here, there.values(), strict=True):
        assert np.abs(np.array(theirs, np.float64) - mine).max() <= tolerance.get(CPU, tolerance["default"])


def _on_this_computer(model: str) -> list[np.ndarray]:
    """Outputs of the same runtime here, for the same pattern, in the order of the model."""
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(str(DEFAULTS / model / "1/model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    for spec in interpreter.get_input_details():
        pattern = (np.arange(int(np.prod(spec["shape"]))) * 31 % 256).astype(np.uint8)
        kind = np.dtype(spec["dtype"])
        values = pattern.view(kind) if kind.itemsize == 1 else pattern.astype(kind)
        interpreter.set_tensor(spec["index"], values.reshape(spec["shape"]))
    interpreter.invoke()
    return [interpreter.get_tensor(o["index"]).ravel().astype(np.float64) for o in interpreter.get_output_details()]


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
    roles = json.loads(guest.python(ROLES, user=user).check())
    assert {name for name, answer in roles.items() if answer == "yes"} == may
    assert {answer for answer in roles.values() if answer != "yes"} <= {"PermissionDenied"}


def test_denial_is_in_the_journal_with_the_callers_uid(guest: Link) -> None:
    uid = guest.run("id -u stranger").check().strip()
    lines = guest.run("journalctl -u edgeaid -o json MESSAGE_ID=ed5d52beb0484dff976dd57d1a8a7574").check().splitlines()
    assert uid in {json.loads(line).get("EDGEAI_UID") for line in lines}


def test_killed_worker_under_load_is_replaced_and_requests_go_on(guest: Link, edgeai_socket: Path) -> None:
    from edgeaid import errors
    from edgeaid.client import Client

    picture = next(DIGIT.glob("*.png")).read_bytes()
    good, retryable, other = [], [], []
    stop = threading.Event()

    def ask() -> None:
        with Client(edgeai_socket, fast=False, timeout=280) as client:
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
        wait_for(lambda: len(good) > 3, 600, "answers before the kill")
        with Client(edgeai_socket, fast=False, timeout=280) as client:
            worker = next(device["pid"] for device in client.devices() if device["id"] == "cpu0")
        guest.run(f"kill -KILL {worker}").check()
        before = len(good)
        wait_for(lambda: len(good) > before + 5, 600, "answers after the kill")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert other == []
    assert guest.run("journalctl -u edgeaid MESSAGE_ID=2e849499a4ba4eb7a8474ffb5f962a3c -o cat").out
