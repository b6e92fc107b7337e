"""Run by an interpreter that has Home Assistant: `homeassistant_schema.py FILE`.

Takes the JSON of a discovery message through Home Assistant's own schemas: the device's, then each component's by its
platform. Prints {"version": ..., "platforms": [...]}; a message that is refused is a traceback.
"""

import asyncio
import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path

from homeassistant.components.mqtt import discovery, schemas
from homeassistant.const import __version__
from homeassistant.core import HomeAssistant


async def main(file: Path, directory: str) -> None:
    """Templates are checked by a Home Assistant, which need not have started."""
    logging.disable(logging.WARNING)
    HomeAssistant(directory)  # it is found by its event loop
    message = json.loads(file.read_text())
    whole = schemas.DEVICE_DISCOVERY_SCHEMA(json.loads(file.read_text()))
    platforms = set()
    # As when a device is discovered: shared options go into each component, which its platform then takes.
    for component in message["components"].values():
        platform = component.pop("platform")
        platforms.add(platform)
        shared = {key: whole[key] for key in schemas.SHARED_OPTIONS if key in whole}
        config = {**component, **shared, "device": message["device"], "origin": message["origin"]}
        module = importlib.import_module(f"homeassistant.components.mqtt.{platform}")
        module.DISCOVERY_SCHEMA(config)
    assert discovery.TOPIC_MATCHER.match("device/edgeai_pi/config")
    print(json.dumps({"version": __version__, "platforms": sorted(platforms)}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(Path(sys.argv[1]), made))
