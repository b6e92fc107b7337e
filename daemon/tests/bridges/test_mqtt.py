"""The MQTT bridge against a real mosquitto: entities are found, and nothing is lost while the broker is away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeaid.bridges.homeassistant import Topics, discovery, word
from edgeaid.bridges.outbox import Message, Outbox
from tests.support.streams import TRACKED, gone, put, reaches
from tests.support.waiting import eventually

from ..support.daemon import Running
from ..support.mqtt import BROKER, Broker

mqtt = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")


class Ear:
    """Hears all topics."""

    def __init__(self, broker: Broker, prepare: Callable[[Any], None] = lambda _: None) -> None:
        self.last: dict[str, bytes] = {}
        self.all: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.connections = 0
        self.losses = 0
        self.client.on_disconnect = lambda *_: self._lost()
        self.client.on_connect = lambda *_: self.client.subscribe("#", 1)
        self.client.on_subscribe = lambda *_: self._subscribed()
        self.client.on_message = lambda _c, _d, m: self._heard(m)
        self.client.reconnect_delay_set(1, 1)
        prepare(self.client)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def _subscribed(self) -> None:
        self.connections += 1

    def _lost(self) -> None:
        self.losses += 1

    def _heard(self, message: Any) -> None:
        self.last[message.topic] = message.payload
        self.all.append((message.topic, message.payload))

    def json(self, topic: str) -> Any:
        """The last message on a topic, waited for."""
        return json.loads(eventually(lambda: self.last.get(topic)))

    def events(self, stream: str) -> list[dict[str, Any]]:
        """What was heard of a stream's events."""
        return [json.loads(payload) for topic, payload in self.all if topic == f"edgeai/pi/{stream}/events"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if BROKER is None:
        pytest.skip("mosquitto is not installed")
    running = Broker(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def bridge(daemon: Any, broker: Broker) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edgeaid.bridges.mqtt", "--socket", str(daemon.socket), "--node", "pi"]
        started.append(subprocess.Popen([*command, "--broker", f"127.0.0.1:{broker.port}", *words]))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_home_assistant_finds_streams_sticks_and_models_by_itself_and_can_stop_a_stream(
    daemon: Running, broker: Broker, bridge: Callable[..., subprocess.Popen[bytes]]
) -> None:
    put(daemon, "hall", source="test:digits?width=384&height=384", fps=5, stage=TRACKED)
    reaches(daemon, "hall", "running")
    ear = Ear(broker)
    process = bridge()
    try:
        eventually(lambda: ear.last.get("edgeai/pi/availability") == b"online")
        topic = "homeassistant/device/edgeai_pi/config"
        config = eventually(lambda: "hall_count_7" in (c := ear.json(topic))["components"] and c)
        assert config["origin"]["name"] == "edgeaid"
        components = config["components"]
        assert {c["platform"] for c in components.values()} == {"switch", "sensor", "image", "binary_sensor", "update"}
        assert len({c["unique_id"] for c in components.values()}) == len(components)
        eventually(lambda: ear.last.get(components["hall_count_7"]["state_topic"]) == b"1")
        assert ear.json(components["model_digits"]["state_topic"])["installed_version"] == "1"
        assert eventually(lambda: ear.last.get("edgeai/pi/device/cpu0/state")) == b"ready"
        ear.client.publish(components["hall_switch"]["command_topic"], "OFF", qos=1)
        reaches(daemon, "hall", "stopped")
        eventually(lambda: ear.last.get(components["hall_switch"]["state_topic"]) == b"OFF")
        eventually(lambda: ear.last.get(components["hall_count_7"]["state_topic"]) == b"0")
        ear.client.publish(components["hall_switch"]["command_topic"], "ON", qos=1)
        reaches(daemon, "hall", "running")
        image = eventually(lambda: ear.last.get(components["hall_snapshot"]["image_topic"]))
        assert image[:2] == b"\xff\xd8"
        heard = len(ear.all)
        ear.client.publish("homeassistant/status", "online", qos=1)
        eventually(lambda: "homeassistant/device/edgeai_pi/config" in [t for t, _ in ear.all[heard:]])
        process.kill()
        eventually(lambda: ear.last["edgeai/pi/availability"] == b"offline")
    finally:
        ear.client.loop_stop()
        gone(daemon, "hall")


def test_after_a_restart_of_the_broker_everything_is_told_again_and_no_event_is_missing(
    daemon: Running, broker: Broker, bridge: Callable[..., subprocess.Popen[bytes]], frames_of_digits: Any
) -> None:
    process = bridge()
    ear = Ear(broker)
    try:
        eventually(lambda: ear.last.get("edgeai/pi/availability") == b"online")
        put(daemon, "walk", source="test:digits?width=384&height=384&frames=400", fps=5, stage=TRACKED)
        eventually(lambda: "edgeai/pi/walk/enabled/state" in ear.last)
        broker.stop()
        eventually(lambda: ear.losses)  # and so has the bridge, whose connection ended with the same process
        put(daemon, "walk", source=str(frames_of_digits), stage=TRACKED)
        reaches(daemon, "walk", "ended")
        ear.last.clear()
        ear.all.clear()
        process.send_signal(signal.SIGSTOP)  # subscribers must be connected before publishers
        ear.connections = 0
        broker.start()
        eventually(lambda: ear.connections)
        process.send_signal(signal.SIGCONT)
        eventually(lambda: ear.last.get("edgeai/pi/availability") == b"online")
        eventually(lambda: ear.json("edgeai/pi/walk/state")["state"] == "ended")
        told = eventually(lambda: (e := ear.events("walk")) and e[-1]["type"] == "end" and e)
        ended = {e["id"] for e in told if e["type"] == "end"}
        assert len(ended) >= 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        eventually(lambda: ear.last["edgeai/pi/availability"] == b"offline")
    finally:
        ear.client.loop_stop()
        gone(daemon, "walk")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and server.pem and server.key for 127.0.0.1 signed by it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; the certificates are made with it")
    directory = tmp_path_factory.mktemp("authority")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (directory / "names").write_text("subjectAltName = IP:127.0.0.1\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")
    return directory


@pytest.fixture
def closed_broker(tmp_path: Path, authority: Path) -> Iterator[Broker]:
    """A broker that speaks TLS only and knows the user pi with the password swordfish."""
    if BROKER is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed")
    accounts = tmp_path / "accounts"
    subprocess.run(["mosquitto_passwd", "-c", "-b", accounts, "pi", "swordfish"], check=True, capture_output=True)
    running = Broker(
        tmp_path,
        f"password_file {accounts}",
        f"certfile {authority}/server.pem",
        f"keyfile {authority}/server.key",
        "allow_anonymous false",
    )
    yield running
    running.stop()


def talk(daemon: Any, broker: Broker, log: Path, *words: str) -> subprocess.Popen[bytes]:
    """A bridge whose log is kept; it names no password among its arguments."""
    command = [sys.executable, "-m", "edgeaid.bridges.mqtt", "--socket", str(daemon.socket), "--node", "pi"]
    with open(log, "wb") as stream:
        return subprocess.Popen([*command, "--broker", f"127.0.0.1:{broker.port}", *words], stderr=stream)


def test_a_broker_that_wants_encryption_and_a_password_gets_both(
    daemon: Running, closed_broker: Broker, authority: Path, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("swordfish\n")
    account = ("--user", "pi", "--password-file", str(password))

    def prepare(client: Any) -> None:
        client.tls_set(str(authority / "ca.pem"))
        client.username_pw_set("pi", "swordfish")

    ear = Ear(closed_broker, prepare)
    process = talk(daemon, closed_broker, tmp_path / "log", *account, "--ca", str(authority / "ca.pem"))
    try:
        eventually(lambda: ear.last.get("edgeai/pi/availability") == b"online")
        eventually(lambda: ear.last.get("homeassistant/device/edgeai_pi/config"))
        assert b"swordfish" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        process.terminate()
        process.wait(20)
        ear.client.loop_stop()
    assert "swordfish" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("words", "password", "reason"),
    [
        (("--user", "pi"), "marlin", "the broker refuses: Not authorized"),
        ((), "", "the broker refuses: Not authorized"),
        (("--tls", "--user", "pi"), "swordfish", "certificate verify failed"),
    ],
)
def test_a_broker_that_refuses_or_is_not_trusted_is_reported(
    daemon: Running,
    closed_broker: Broker,
    authority: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    password: str,
    reason: str,
) -> None:
    file = tmp_path / "password"
    file.write_text(password)
    trust = () if "--tls" in words else ("--ca", str(authority / "ca.pem"))
    account = ("--password-file", str(file)) if password else ()
    process = talk(daemon, closed_broker, tmp_path / "log", *words, *account, *trust)
    try:
        eventually(lambda: reason in (tmp_path / "log").read_text())
        assert process.poll() is None  # it goes on trying: a broker's accounts may be put right
        process.terminate()
        assert process.wait(60) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


def test_a_full_queue_loses_its_oldest_message_and_counts_it() -> None:
    sent: list[Message] = []

    def send(message: Message) -> bool:
        sent.append(message)
        return True

    outbox = Outbox(send, size=3)
    for number in range(5):
        outbox.put(Message("events", str(number).encode()))
    outbox.put(Message("state", b"a", retain=True))
    outbox.put(Message("state", b"b", retain=True))
    assert outbox.dropped == 3
    outbox.start()
    outbox.connected(yes=True)
    eventually(lambda: not len(outbox))
    outbox.halt()
    assert [m.payload for m in sent] == [b"b", b"3", b"4"]


def test_what_the_broker_does_not_confirm_is_sent_again() -> None:
    tries: list[bytes] = []

    def send(message: Message) -> bool:
        tries.append(message.payload)
        return len(tries) > 2

    outbox = Outbox(send)
    outbox.start()
    outbox.connected(yes=True)
    outbox.put(Message("events", b"1"))
    eventually(lambda: not len(outbox))
    outbox.halt()
    assert tries == [b"1"] * 3


def test_labels_with_separators_and_wildcards_stay_one_level_of_a_topic() -> None:
    topics = Topics("edgeai", "pi")
    assert topics.stream("door", "a/b#+ c") == "edgeai/pi/door/a_b_c"
    stream = {"name": "door", "counts": {"zones": {"in": {}}}}
    made = discovery(topics, "1", [stream], {"door": ["a/b", "person"]}, [], [])
    for component in made["components"].values():
        for key, value in component.items():
            if key.endswith("topic"):
                assert not set(value) & set("#+ "), value
    assert word("") == "_"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_home_assistants_own_schemas_accept_the_discovery_message(tmp_path: Path) -> None:
    python = os.environ.get("EDGEAI_HOMEASSISTANT_PYTHON")
    if not python:
        pytest.skip(
            "no interpreter with Home Assistant (pip install homeassistant paho-mqtt; EDGEAI_HOMEASSISTANT_PYTHON)"
        )
    stream = {"name": "door", "counts": {"zones": {"in": {}}}}
    devices = [{"id": "cpu0", "state": "ready"}, {"id": "tpu0", "state": "absent"}]
    message = discovery(Topics("edgeai", "pi"), "1.0", [stream], {"door": ["a/b", "person"]}, devices, ["digits"])
    script = Path(__file__).with_name("homeassistant_schema.py")
    file = tmp_path / "message.json"

    def ask(value: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        file.write_text(json.dumps(value))
        return subprocess.run([python, script, file], capture_output=True, text=True, check=False, timeout=300)

    done = ask(message)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["platforms"] == ["binary_sensor", "image", "sensor", "switch", "update"]
    wrong = json.loads(json.dumps(message))
    wrong["components"]["door_switch"]["command_topic"] = "edgeai/#/set"
    refused = ask(wrong)
    assert refused.returncode != 0
    assert "Wildcards cannot be used" in refused.stderr
