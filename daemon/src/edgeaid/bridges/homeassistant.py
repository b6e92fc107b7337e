"""What is published for Home Assistant: one discovery message with all entities of a device. Pure.

The format is MQTT device discovery (Home Assistant 2024.11 and later): `homeassistant/device/ID/config`, retained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Labels and zones beyond this get no entity of their own; the counts' JSON has them all.
MAX_ENTITIES: Final = 64
SUPPORT_URL: Final = "https://www.home-assistant.io/integrations/mqtt/"

_WORD: Final = re.compile(r"[^A-Za-z0-9_-]+")


def word(text: str) -> str:
    """A text as one level of a topic: no separators, wildcards or blanks."""
    return _WORD.sub("_", text)[:64] or "_"


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of all topics of one device."""

    #: First level, "edgeai".
    prefix: str
    #: Name of the device.
    node: str
    #: First level of Home Assistant's own topics.
    discovery: str = "homeassistant"

    @property
    def base(self) -> str:
        """What all of the device's topics begin with."""
        return f"{self.prefix}/{self.node}"

    @property
    def availability(self) -> str:
        """online, or offline by the last will."""
        return f"{self.base}/availability"

    @property
    def config(self) -> str:
        """The discovery message."""
        return f"{self.discovery}/device/edgeai_{self.node}/config"

    @property
    def status(self) -> str:
        """Home Assistant says there that it has started."""
        return f"{self.discovery}/status"

    def stream(self, name: str, *levels: str) -> str:
        """A topic of a stream."""
        return "/".join([self.base, name, *map(word, levels)])

    def device(self, identity: str) -> str:
        """State of an accelerator."""
        return f"{self.base}/device/{word(identity)}/state"

    def model(self, name: str, *levels: str) -> str:
        """A topic of a model."""
        return "/".join([self.base, "model", word(name), *levels])


def discovery(
    topics: Topics,
    version: str,
    streams: Sequence[Mapping[str, Any]],
    labels: Mapping[str, Sequence[str]],
    devices: Sequence[Mapping[str, Any]],
    models: Sequence[str],
) -> dict[str, Any]:
    """The message. `streams` and `devices` as the daemon lists them; `labels` = those of each stream, by its name."""
    components: dict[str, Any] = {}
    for stream in streams:
        components |= _stream(topics, stream, labels.get(stream["name"], ()))
    for device in devices:
        key = f"device_{word(device['id'])}"
        components[key] = {
            "platform": "sensor",
            "unique_id": f"{topics.node}_{key}",
            "name": f"{device['id']} state",
            "state_topic": topics.device(device["id"]),
            "entity_category": "diagnostic",
            "icon": "mdi:chip",
        }
    for model in models:
        key = f"model_{word(model)}"
        components[key] = {
            "platform": "update",
            "unique_id": f"{topics.node}_{key}",
            "name": f"Model {model}",
            "state_topic": topics.model(model, "update"),
            "command_topic": topics.model(model, "update", "set"),
            "payload_install": "install",
            "entity_category": "config",
        }
    return {
        "device": {
            "identifiers": [f"edgeai_{topics.node}"],
            "name": topics.node,
            "manufacturer": "edgeaid",
            "model": "Edge AI device",
            "sw_version": version,
        },
        "origin": {"name": "edgeaid", "sw_version": version, "support_url": SUPPORT_URL},
        "availability": [{"topic": topics.availability}],
        "components": components,
    }


def _stream(topics: Topics, stream: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    name = stream["name"]
    key = word(name)
    state = topics.stream(name, "state")

    def entity(kind: str, platform: str, text: str, **more: Any) -> dict[str, Any]:
        unique = f"{topics.node}_{key}_{kind}"
        return {f"{key}_{kind}": {"platform": platform, "unique_id": unique, "name": f"{name} {text}", **more}}

    entities = entity(
        "switch", "switch", "running",
        state_topic=topics.stream(name, "enabled", "state"), command_topic=topics.stream(name, "enabled", "set"),
    )  # fmt: skip
    entities |= entity(
        "state", "sensor", "state", state_topic=state, value_template="{{ value_json.state }}",
        json_attributes_topic=state, entity_category="diagnostic",
    )  # fmt: skip
    entities |= entity(
        "fps", "sensor", "frames per second", state_topic=state, value_template="{{ value_json.fps }}",
        unit_of_measurement="fps", state_class="measurement", entity_category="diagnostic",
    )  # fmt: skip
    entities |= entity(
        "snapshot", "image", "snapshot", image_topic=topics.stream(name, "snapshot"), content_type="image/jpeg"
    )
    zones = ["", *stream.get("counts", {}).get("zones", {})]
    pairs = [(zone, label) for zone in zones for label in labels][:MAX_ENTITIES]
    for zone, label in pairs:
        where = topics.stream(name, *(("zone", zone) if zone else ()), label)
        text = f"{label} in {zone}" if zone else label
        kind = f"{word(zone)}_{word(label)}" if zone else word(label)
        entities |= entity(
            f"count_{kind}", "sensor", f"{text} count", state_topic=where, state_class="measurement",
        )  # fmt: skip
        entities |= entity(
            f"occupancy_{kind}", "binary_sensor", text, state_topic=where, device_class="occupancy",
            value_template="{{ 'ON' if value | int(0) > 0 else 'OFF' }}",
        )  # fmt: skip
    return entities
