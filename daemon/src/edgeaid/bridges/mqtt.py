"""`edgeai-mqtt`: streams, accelerators and models of this device on an MQTT broker, discovered by Home Assistant.

An ordinary client of the daemon: it lists streams, follows their events, and switches them on command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import __version__, errors
from ..client import Client
from ..client.arguments import DEFAULT_SOCKET
from ..client.streams import Streams
from .homeassistant import MAX_ENTITIES, Topics, discovery, word
from .outbox import CONFIRM_SECONDS, Message, Outbox

if TYPE_CHECKING:
    from paho.mqtt.client import Client as Mqtt

log = logging.getLogger("edgeai-mqtt")

POLL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 2.0
KEEPALIVE_SECONDS: Final = 30
#: Kinds of event after which the snapshot is renewed.
PICTURED: Final = ("new", "enter", "dwell", "cross", "class")


class Bridge:
    """One daemon, one broker."""

    def __init__(self, path: str, topics: Topics, mqtt: Mqtt) -> None:
        self.path = path
        self.topics = topics
        self.mqtt = mqtt
        self.outbox = Outbox(self._send)
        self.halted = threading.Event()
        self._labels: dict[str, list[str]] = defaultdict(list)
        self._following: dict[str, threading.Thread] = {}
        self._known: set[str] = set()
        #: Why the broker could not be reached the last time; said when it changes.
        self._unreachable = ""
        mqtt.will_set(topics.availability, "offline", qos=1, retain=True)
        mqtt.on_connect = self._on_connect
        mqtt.on_connect_fail = self._on_connect_fail
        mqtt.on_disconnect = self._on_disconnect
        mqtt.on_message = self._on_message

    # --- the broker's side ------------------------------------------------------------------------------------------

    def _send(self, message: Message) -> bool:
        info = self.mqtt.publish(message.topic, message.payload, qos=1, retain=message.retain)
        with contextlib.suppress(ValueError, RuntimeError):  # not connected any more
            info.wait_for_publish(CONFIRM_SECONDS)
            return bool(info.is_published())
        return False

    def _on_connect(self, mqtt: Mqtt, _data: Any, _flags: Any, reason: Any, _properties: Any = None) -> None:
        if reason.is_failure:
            log.error("the broker refuses: %s", reason)
            return
        self._unreachable = ""
        log.info("connected to the broker")
        base = self.topics.base
        mqtt.subscribe([(self.topics.status, 1), (f"{base}/+/enabled/set", 1), (f"{base}/model/+/update/set", 1)])
        self.outbox.put(Message(self.topics.availability, b"online", retain=True))
        self.outbox.connected(yes=True)

    def _on_connect_fail(self, _mqtt: Mqtt, _data: Any) -> None:
        # paho calls this while it handles the error, and says nothing of it; it tries again every few seconds.
        reason = str(sys.exception() or "no answer")
        if reason != self._unreachable:
            self._unreachable = reason
            log.warning("the broker cannot be reached: %s", reason)

    def _on_disconnect(self, _mqtt: Mqtt, _data: Any, _flags: Any, reason: Any, _properties: Any = None) -> None:
        self.outbox.connected(yes=False)
        if not self.halted.is_set():
            log.warning("the broker is gone: %s", reason)

    def _on_message(self, _mqtt: Mqtt, _data: Any, message: Any) -> None:
        topic, payload = str(message.topic), bytes(message.payload[:64])
        if topic == self.topics.status:
            if payload == b"online":
                self.outbox.connected(yes=True)  # Home Assistant has started: publish everything again
            return
        threading.Thread(target=self._command, args=(topic, payload, message.retain), daemon=True).start()

    def _command(self, topic: str, payload: bytes, retained: bool) -> None:
        if retained:
            return  # a retained command is an old one and not obeyed
        levels = topic.removeprefix(self.topics.base + "/").split("/")
        try:
            with Client(self.path, fast=False) as client:
                if levels[-2:] == ["enabled", "set"] and payload in (b"ON", b"OFF"):
                    Streams(client).switch(levels[0], "start" if payload == b"ON" else "stop")
                elif levels[0] == "model" and payload == b"install":
                    for row in {m["name"] for m in client.models() if word(m["name"]) == levels[1]}:
                        client.load(row)
                self._look(client)
        except errors.EdgeaiError as error:
            log.error("%s: %s", topic, error)

    # --- the daemon's side ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `halted`."""
        self.outbox.start()
        while not self.halted.wait(POLL_SECONDS if self._known else 0.1):
            try:
                with Client(self.path, fast=False) as client:
                    while not self.halted.is_set():
                        self._look(client)
                        self.halted.wait(POLL_SECONDS)
            except errors.EdgeaiError as error:
                log.warning("%s", error)
                self.halted.wait(RETRY_SECONDS)
        self.outbox.halt()

    def _look(self, client: Client) -> None:
        """Publish the present state; only what changed is sent."""
        streams = Streams(client).list()
        devices = client.devices()
        models = client.models()
        for stream in streams:
            self._stream(stream)
        for device in devices:
            self._retain(self.topics.device(device["id"]), device["state"])
        updates = _updates(models)
        for name, update in updates.items():
            self._retain(self.topics.model(name, "update"), update)
        message = discovery(self.topics, __version__, streams, self._labels, devices, sorted(updates))
        self._retain(self.topics.config, message)
        names = {s["name"] for s in streams}
        for name in self._known - names:
            self._labels.pop(name, None)
        self._known = names | {""}
        for name in names:
            self._follow(name)

    def _retain(self, topic: str, value: Any) -> None:
        payload = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
        self.outbox.put(Message(topic, payload.encode(), retain=True))

    def _stream(self, stream: dict[str, Any]) -> None:
        name = stream["name"]
        topics, labels = self.topics, self._labels[name]
        on = stream["state"] != "stopped"
        self._retain(topics.stream(name, "enabled", "state"), "ON" if on else "OFF")
        state = {k: stream[k] for k in ("state", "reason", "source", "frames", "restarts")}
        state |= {"fps": stream.get("fps", 0.0) if on else 0.0, "latency": stream.get("latency", {})}
        self._retain(topics.stream(name, "state"), state)
        counts = stream.get("counts", {}) if on else {}
        objects, zones = counts.get("objects", {}), counts.get("zones", {})
        for label in objects:
            if label not in labels and len(labels) < MAX_ENTITIES:
                labels.append(label)
        for label in labels:
            self._retain(topics.stream(name, label), str(objects.get(label, 0)))
            for zone, inside in zones.items():
                self._retain(topics.stream(name, "zone", zone, label), str(inside.get(label, 0)))
        self._retain(topics.stream(name, "all"), str(sum(objects.values())))

    def _follow(self, name: str) -> None:
        thread = self._following.get(name)
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._events, args=(name,), name=f"events of {name}", daemon=True)
            self._following[name] = thread
            thread.start()

    def _events(self, name: str) -> None:
        """Events of one stream, taken up where they were left, until it is gone."""
        last = ""
        while not self.halted.is_set() and name in self._known:
            try:
                with Client(self.path, fast=False) as client:
                    for event in Streams(client).events(name, after=last, past=False):
                        last = event.pop("event_id")
                        self._event(client, name, event)
                        if self.halted.is_set():
                            return
            except errors.NotFound:
                return
            except errors.EdgeaiError as error:
                log.debug("events of %s: %s", name, error)
            self.halted.wait(RETRY_SECONDS)

    def _event(self, client: Client, name: str, event: dict[str, Any]) -> None:
        if event["type"] == "state":
            return
        label = event.get("label")
        labels = self._labels[name]
        if isinstance(label, str) and label not in labels and len(labels) < MAX_ENTITIES:
            labels.append(label)
        body = json.dumps({**event, "camera": name}, separators=(",", ":")).encode()
        self.outbox.put(Message(self.topics.stream(name, "events"), body))
        if event["type"] in PICTURED:
            with contextlib.suppress(errors.EdgeaiError):  # the stream may have ended meanwhile
                picture = Streams(client).frame(name, boxes=True)
                self.outbox.put(Message(self.topics.stream(name, "snapshot"), picture, retain=True))


def _updates(models: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """What `update` entities show: the version that serves, and the newest one that is stored."""
    served: dict[str, str] = {}
    newest: dict[str, int] = {}
    for row in models:
        name, version = row["name"], row["version"]
        newest[name] = max(newest.get(name, 0), int(version))
        if row.get("default"):
            served[name] = version
    return {
        name: {"installed_version": version, "latest_version": str(max(int(version), newest[name])), "title": name}
        for name, version in served.items()
    }


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgeai-mqtt", description=__doc__)
    env = os.environ.get
    parser.add_argument("--socket", default=DEFAULT_SOCKET, metavar="PATH", help="the daemon's socket")
    parser.add_argument(
        "--broker", default=env("EDGEAI_MQTT_BROKER", "localhost"), metavar="HOST[:PORT]", help="$EDGEAI_MQTT_BROKER"
    )
    parser.add_argument("--user", default=env("EDGEAI_MQTT_USER", ""), help="$EDGEAI_MQTT_USER")
    parser.add_argument(
        "--password-file", default=env("EDGEAI_MQTT_PASSWORD_FILE", ""), metavar="FILE",
        help="its first line is the password; $EDGEAI_MQTT_PASSWORD_FILE",
    )  # fmt: skip
    parser.add_argument(
        "--tls", action="store_true", default=bool(env("EDGEAI_MQTT_TLS")), help="encrypt; $EDGEAI_MQTT_TLS"
    )
    parser.add_argument("--ca", default=env("EDGEAI_MQTT_CA", ""), metavar="FILE", help="authority; $EDGEAI_MQTT_CA")
    parser.add_argument("--node", default=env("EDGEAI_MQTT_NODE", ""), help="name of this device (its host name)")
    parser.add_argument("--prefix", default="edgeai", help="first level of the topics (default: %(default)s)")
    parser.add_argument("--discovery", default="homeassistant", help="Home Assistant's level (default: %(default)s)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser.parse_args(argv)


def _password(file: str) -> str | None:
    if not file:
        return None
    try:
        return Path(file).read_text().split("\n", 1)[0]
    except OSError as error:
        raise errors.InvalidConfig(f"--password-file {file}: {error.strerror}") from error


def connect(args: argparse.Namespace) -> tuple[Bridge, str, int]:
    """A bridge and the broker's host and port. InvalidConfig, Unsupported."""
    try:
        from paho.mqtt.client import Client as Mqtt
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise errors.Unsupported("edgeai-mqtt needs paho-mqtt 2; pip install './daemon[mqtt]'") from error
    node = word(args.node or socket.gethostname().partition(".")[0])
    host, _, port = args.broker.rpartition(":") if args.broker.count(":") == 1 else (args.broker, "", "")
    if port and not port.isdecimal():
        raise errors.InvalidConfig(f"--broker {args.broker!r}: {port!r} is not a port")
    mqtt = Mqtt(CallbackAPIVersion.VERSION2, client_id=f"edgeai-{node}")
    if args.user:
        mqtt.username_pw_set(args.user, _password(args.password_file))
    if args.tls or args.ca:
        try:
            mqtt.tls_set_context(ssl.create_default_context(cafile=args.ca or None))
        except (OSError, ssl.SSLError) as error:
            raise errors.InvalidConfig(f"--ca {args.ca}: {error}") from error
    mqtt.reconnect_delay_set(1, 5)
    topics = Topics(args.prefix, node, args.discovery)
    return Bridge(args.socket, topics, mqtt), host, int(port or (8883 if args.tls or args.ca else 1883))


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    args = _arguments(argv)
    logging.basicConfig(level=args.log_level.upper(), format="%(levelname)s %(message)s")
    try:
        bridge, host, port = connect(args)
    except errors.EdgeaiError as error:
        print(f"edgeai-mqtt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bridge.halted.set())
    bridge.mqtt.connect_async(host, port, KEEPALIVE_SECONDS)
    bridge.mqtt.loop_start()
    bridge.run()
    with contextlib.suppress(ValueError, RuntimeError):  # the broker was never there, or is not any more
        bridge.mqtt.publish(bridge.topics.availability, "offline", qos=1, retain=True).wait_for_publish(2.0)
    bridge.mqtt.disconnect()
    bridge.mqtt.loop_stop()


if __name__ == "__main__":
    main()
