"""What the daemon's tree has for a device is in a package of the layer: units, drop-ins, rules, examples, the C header, programs."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from rig.paths import TOP

DAEMON = TOP / "daemon"
RECIPES = TOP / "meta-edgeai/recipes-edgeai"
#: Extra of pip -> package of the layer that has what it has; None where an image has it otherwise.
EXTRAS = {
    "litert": None,  # python3-ai-edge-litert-bin or python3-tflite-runtime
    "ncs2": None,  # openvino-myriad
    "grpc": "edgeaid-grpc",
    "k210": "edgeaid-k210",
    "hotplug": "edgeaid-hotplug",
    "systemd": "edgeaid-journal",
    "bundle": "edgeaid-bundle",
    "mqtt": "edgeaid-mqtt",
    "frigate": "edgeaid-frigate",
    "json": "edgeaid-json",
    "toolkit": None,  # edgeaid-toolkit, a package of the recipe edgeaid
}
#: Requirement of pip -> recipe, where it is not python3-NAME.
NAMES = {"systemd-python": "python3-systemd"}


def installed(recipe: Path, directory: str) -> set[str]:
    """Patterns of the files of one directory of daemon/ that do_install of a recipe names; loops of the shell are written out."""
    text = recipe.read_text()
    loops = dict(re.findall(r"for (\w+) in (.+); do", text))
    patterns = set()
    for name in re.findall(rf"\$\{{S\}}/{directory}/([\w.@*$-]+)", text):
        patterns |= set(loops[name[1:]].split()) if name.startswith("$") else {name}
    return patterns


@pytest.mark.parametrize("directory", ["systemd", "examples"])
def test_every_file_that_the_daemon_ships_is_installed_by_a_recipe(directory: str) -> None:
    patterns = {pattern for recipe in RECIPES.glob("*/*.bb") for pattern in installed(recipe, directory)}
    shipped = {path.name for path in (DAEMON / directory).iterdir() if path.is_file()}
    assert len(shipped) > 5
    assert {name for name in shipped if not any(fnmatch(name, pattern) for pattern in patterns)} == set()
    # And no recipe installs what is not there.
    assert {pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in shipped)} == set()


def test_a_unit_is_installed_by_one_recipe_only() -> None:
    places = [name for recipe in RECIPES.glob("*/*.bb") for name in installed(recipe, "systemd")]
    assert sorted(places) == sorted(set(places))


def test_every_extra_of_pip_has_a_package_that_needs_the_same() -> None:
    extras = tomllib.loads((DAEMON / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == set(EXTRAS)
    for extra, package in EXTRAS.items():
        if package is None:
            continue
        (recipe,) = RECIPES.glob(f"*/{package}_*.bb")
        needed = " ".join(re.findall(r'^RDEPENDS:\$\{PN\} \+?= "(.*)"', recipe.read_text(), re.MULTILINE)).split()
        for requirement in extras[extra]:
            name = re.split(r"[<>=]", requirement)[0]
            assert NAMES.get(name, f"python3-{name}") in needed, f"{package}: {requirement}"


def test_the_unit_of_mqtt_waits_for_its_settings_in_a_place_that_a_read_only_root_keeps() -> None:
    recipe = (RECIPES / "edgeaid/edgeaid-mqtt_0.1.0.bb").read_text()
    unit = (DAEMON / "systemd/edgeai-mqtt.service").read_text()
    (settings,) = re.findall(r"^EnvironmentFile=-?(/etc/\S+)", unit, re.MULTILINE)
    assert f"ConditionPathExists=%s{settings.removeprefix('/etc')}" in recipe
    image = (TOP / "meta-edgeai/recipes-core/images/edgeai-image.inc").read_text()
    (kept,) = re.findall(r'^EDGEAI_PERSISTENT \?= "(.*?)"', image, re.MULTILINE | re.DOTALL)
    assert settings.replace("/etc", "${sysconfdir}") in kept
