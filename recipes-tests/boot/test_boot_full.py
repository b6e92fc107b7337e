"""An image with features, one boot: read-only root with what changes on a partition of its own, gRPC, a Neural Compute Stick.

The stick is a stand-in twice over: a USB device made of software, and a library with libmvnc's interface.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rig import machine, paths
from rig.link import Link, wait_for

from .card import renamed_model, wait_serving, write_card
from .conftest import TOP

pytestmark = pytest.mark.slow

GOLDEN = TOP / "daemon/src/edgeaid/models/defaults/digits/1/golden"
STANDINS = TOP / "daemon/tests/standins"
PTEST = ("tests/devices", "tests/formats", "tests/models")
GRPC = "/run/edgeai/grpc/edgeaid.sock"

ASK_GRPC = """
import json, sys
import grpc, numpy as np
from edgeaid.api.grpc.schema import HEALTH_MESSAGES, MESSAGES
image = np.load("/run/in.npy")
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    health = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=HEALTH_MESSAGES["HealthCheckResponse"].FromString)
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=MESSAGES["ModelInferResponse"].FromString)
    request = MESSAGES["ModelInferRequest"](model_name="digits")
    request.inputs.add(name="image", datatype="UINT8" if image.dtype == np.uint8 else "INT8", shape=image.shape)
    request.raw_input_contents.append(image.tobytes())
    answer = call(request, timeout=120)
    print(json.dumps({"health": health(HEALTH_MESSAGES["HealthCheckRequest"](), timeout=120).status, "scores": list(answer.raw_output_contents[0])}))
"""


class Device:
    """A flashed card that can be booted again and again."""

    def __init__(self, card: Path, disk: Path) -> None:
        self.card, self.disk = card, disk
        self.machine: machine.Machine | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="edgeai-full-"))

    def boot(self) -> Link:
        board = machine.Board(read_only_root=True)
        self.machine = machine.boot(self.card, paths.work_dir(), self.disk, board, fresh=not self.disk.is_file())
        self.machine.wait_up()
        link = self.link
        wait_serving(link, self.directory)
        return link

    @property
    def link(self) -> Link:
        assert self.machine is not None
        assert self.machine.link is not None
        return self.machine.link

    def cut(self) -> None:
        """The power goes."""
        if self.machine is not None:
            self.machine.kill()
            self.machine.remove()
            self.machine = None

    def forward(self, inside: str) -> Path:
        path = self.directory / Path(inside).parent.name / "s"
        self.link.forward(path, inside)
        return path


@pytest.fixture(scope="module")
def device(full_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    directory = tmp_path_factory.mktemp("full")
    card = write_card(
        full_image, directory / "card.img", "--hostname", "cellar", "--preload", renamed_model(directory, "mine", 3)
    )
    made = Device(card, directory / "card.qcow2")
    try:
        made.boot()
        yield made
        assert made.machine is not None
        assert made.machine.shut_down() == 0
    finally:
        made.cut()


@pytest.fixture
def guest(device: Device) -> Link:
    return device.link


def test_boots_without_a_failed_unit_and_within_its_walls(guest: Link) -> None:
    assert guest.run("systemctl --failed --no-legend --plain").check().strip() == ""
    score = guest.run("systemd-analyze security --no-pager edgeaid.service").check()
    assert float(score.split("Overall exposure level for edgeaid.service:")[1].split()[0]) <= 1.5


def test_the_root_is_read_only_and_models_have_their_own_partition(guest: Link) -> None:
    assert guest.run("findmnt -no OPTIONS /").check().split(",")[0] == "ro"
    assert guest.run("touch /etc/new").code != 0
    source = guest.run("findmnt -no SOURCE,FSTYPE,OPTIONS --target /var/lib/edgeai/models").check().split()
    assert source[:2] == ["/dev/vda3[/edgeai]", "ext4"], source
    assert source[2].split(",")[0] == "rw"
    assert guest.run("stat -c %U:%G:%a /var/lib/edgeai").check().strip() == "edgeai:edgeai:750"


def test_nothing_else_writes_to_the_card(guest: Link) -> None:
    writable = guest.run("findmnt -rno SOURCE -O rw -t ext4").check().split()
    assert {source.split("[")[0] for source in writable} == {"/dev/vda3"}
    assert guest.run("ls /var/log/journal").code != 0, "the journal is on the card"


def test_settings_were_applied_to_a_root_that_is_read_only_again(guest: Link) -> None:
    assert "problem" not in guest.run("cat /boot/edgeai-provision.log").check()
    assert guest.run("uname -n").check().strip() == "cellar"
    assert "mine" in guest.run("edgeai models").check()


def test_an_accepted_model_is_there_after_the_power_was_cut(device: Device, tmp_path: Path) -> None:
    from edgeaid.client import Client
    from edgeaid.models import pack

    file = pack.write(renamed_model(tmp_path, "later", 2), tmp_path)
    with Client(device.forward("/run/edgeai/edgeaid.sock"), fast=False, timeout=300) as client:
        assert client.push("later", file)["serving"]
    device.cut()
    link = device.boot()
    shown = {line.split()[0] for line in link.run("edgeai models").check().splitlines() if "READY" in line}
    assert {"later", "mine", "digits"} <= shown
    assert link.run("findmnt -no OPTIONS /").check().split(",")[0] == "ro"
    assert link.run("uname -n").check().strip() == "cellar"


def close(scores: list[int]) -> bool:
    golden = np.load(GOLDEN / "0.out.npy")
    values = np.frombuffer(bytes(scores), golden.dtype)
    return int(np.abs(values.astype(int) - golden.ravel().astype(int)).max()) <= 2


@pytest.mark.parametrize("user", ["root", "edgeai"])
def test_grpc_answers_inside(guest: Link, user: str) -> None:
    guest.put("/run/in.npy", (GOLDEN / "0.in.npy").read_bytes())
    answered = json.loads(guest.python(ASK_GRPC, GRPC, user=user, timeout=300).check())
    assert answered["health"] == 1
    assert close(answered["scores"])


def test_grpc_is_closed_to_others(guest: Link) -> None:
    guest.put("/run/in.npy", (GOLDEN / "0.in.npy").read_bytes())
    done = guest.python(ASK_GRPC, GRPC, user="nobody", timeout=300)
    assert done.code != 0
    assert guest.run(f"stat -c %U:%G:%a {GRPC}").check().strip() == "edgeai:edgeai:660"


def test_grpc_answers_this_computer(device: Device) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    image = np.load(GOLDEN / "0.in.npy")
    tensor = triton.InferInput("image", list(image.shape), "UINT8" if image.dtype == np.uint8 else "INT8")
    tensor.set_data_from_numpy(image)
    with triton.InferenceServerClient(f"unix:{device.forward(GRPC)}") as client:
        assert client.is_model_ready("digits")
        scores = client.infer("digits", [tensor], client_timeout=300).as_numpy("scores")
    assert close(list(scores.tobytes()))


def test_grpc_is_back_after_the_daemon_was_killed(guest: Link) -> None:
    guest.put("/run/in.npy", (GOLDEN / "0.in.npy").read_bytes())
    guest.run(
        "systemctl kill -s KILL --kill-whom=main edgeaid.service || systemctl kill -s KILL --kill-who=main edgeaid.service"
    ).check()
    wait_for(lambda: guest.run(f"systemctl is-active -q edgeaid && test -S {GRPC}").code == 0, 180, "gRPC to return")
    assert close(json.loads(guest.python(ASK_GRPC, GRPC, timeout=300).check())["scores"])


def test_the_daemons_own_tests_pass_from_their_package(guest: Link) -> None:
    """As ptest-runner starts them. All of them take an emulated processor too long: those that need no daemon."""
    done = guest.run(["/usr/lib/edgeaid/ptest/run-ptest", *PTEST], timeout=3600)
    out = done.out + done.err
    counts = Counter(re.findall(r"^(PASS|FAIL|ERROR|SKIP|XFAIL): ", out, re.M))
    assert not counts["FAIL"] + counts["ERROR"], out[-6000:]
    assert counts["PASS"] > 300, out[-6000:]
    print(dict(counts))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real compiled graph, as a bundle of the model `faces` for the stick."""
    from edgeaid.models import pack

    data = Path(os.environ.get("EDGEAI_TEST_DATA", TOP.parent / "shared" / "data")) / "ncs/graph.facedetect80"
    if not data.is_file():
        pytest.skip(f"no compiled graph at {data} (set EDGEAI_TEST_DATA)")
    directory = tmp_path_factory.mktemp("graph")
    model = directory / "faces" / "1"
    model.mkdir(parents=True)
    (model / "faces.graph").write_bytes(data.read_bytes())
    digest = __import__("hashlib").sha256(data.read_bytes()).hexdigest()
    (model / "model.toml").write_text(
        f'schema = 1\nname = "faces"\n[artifacts.ncs]\nfile = "faces.graph"\nsha256 = "{digest}"\n'
    )
    return pack.write(model, directory)


#: The library of the image's test-only package edgeai-standins takes libmvnc's place, with a file where Intel's firmware would be.
STAND_IN = """
set -e
mkdir -p /run/standin/mvnc /run/systemd/system/edgeaid.service.d
cp $(ls /usr/lib*/edgeai-standins/libmvnc_v2_standin.so) /run/standin/libmvnc.so.0
touch /run/standin/mvnc/MvNCAPI-ma2450.mvcmd /run/standin/control
printf '[Service]\\nEnvironment=EDGEAI_MVNC_LIBRARY=/run/standin/libmvnc.so.0 MVNC_STANDIN_CONTROL=/run/standin/control MVNC_STANDIN_STATE=/var/cache/edgeai MVNC_STANDIN_TIME=0\\n' \\
    > /run/systemd/system/edgeaid.service.d/70-standin.conf
systemctl daemon-reload
systemctl restart edgeaid
"""


def test_a_stick_that_is_plugged_in_serves_and_leaves_and_returns(device: Device, graph: Path) -> None:
    from edgeaid import errors
    from edgeaid.client import Client

    guest = device.link
    if guest.run("modprobe vhci_hcd").code:
        pytest.skip("this image's kernel has no vhci_hcd module")
    guest.run(STAND_IN, timeout=300).check()
    daemon = guest.run("systemctl show edgeaid -p MainPID").check()
    guest.put("/run/usb_coral.py", (STANDINS / "usb_coral.py").read_bytes())
    guest.run("mkfifo /run/stick").check()
    guest.run(
        "(python3 /run/usb_coral.py --ncs <> /run/stick > /run/stick.out 2>&1 &) </dev/null >/dev/null 2>&1"
    ).check()
    with Client(device.forward("/run/edgeai/edgeaid.sock"), fast=False, timeout=300) as client:

        def state() -> str:
            return next((d["state"] for d in client.devices() if d["target"] == "ncs"), "")

        wait_for(lambda: state() == "ready", 180, "the stick to be ready")
        assert guest.run("stat -L -c %G:%a /dev/edgeai/ncs").check().strip() == "plugdev:660"
        assert client.push("faces", graph)["serving"]
        given = np.random.default_rng(7).uniform(-1, 1, (1, 80, 80, 3)).astype(np.float32)
        # What the stand-in computes: output i is input 7 i, in half precision.
        wanted = given.ravel().astype(np.float16)[7 * np.arange(50)].astype(np.float32)

        def answers() -> bool:
            outputs = client.infer("faces", given)
            values = next(iter(outputs.outputs.values()))
            return bool(np.array_equal(values.ravel(), wanted))

        assert answers()
        guest.run("echo vanish > /run/standin/control; echo unplug > /run/stick").check()
        wait_for(lambda: state() != "ready", 180, "the stick to be missed")
        with pytest.raises(errors.EdgeaiError):
            answers()
        guest.run(": > /run/standin/control; echo plug > /run/stick").check()
        wait_for(lambda: state() == "ready", 180, "the stick to be ready again")
        wait_for(lambda: _served(answers), 180, "the model to serve again")
    assert guest.run("systemctl show edgeaid -p MainPID").check() == daemon


def _served(answers: Callable[[], bool]) -> bool:
    from edgeaid import errors

    try:
        return answers()
    except errors.EdgeaiError:
        return False
