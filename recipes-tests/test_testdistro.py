"""The test distribution replaces what its list says, and nothing of ours."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "recipes-tests"))

from rig import bitbake, packages, paths  # noqa: E402  the path above has to be set first

OURS = TOP / "meta-edgeai"
#: Recipes of the layer that replace nothing: the image that shows a fault of the rig itself, a program whose machine code is read.
OWN = {"testdistro-image", "hardening-probe"}


def recipes(layer: Path) -> set[str]:
    """Names of the recipes of a layer."""
    return {path.stem.split("_")[0] for path in layer.rglob("*.bb")}


def test_every_recipe_of_the_test_distribution_is_in_its_list() -> None:
    assert recipes(paths.LAYER) - OWN == set(packages.replaced())


def test_every_entry_of_the_list_says_why() -> None:
    assert [name for name, entry in packages.replaced().items() if not entry.get("why")] == []


def test_no_recipe_of_ours_is_replaced_or_masked() -> None:
    assert recipes(paths.LAYER) & recipes(OURS) == set()
    distro = "\n".join(path.read_text() for path in paths.LAYER.rglob("*.conf"))
    for mask in re.findall(r'BBMASK \+= "([^"$]*)', distro):
        assert "meta-edgeai" not in mask


def test_nothing_is_appended_to_a_recipe_of_ours() -> None:
    assert list(paths.LAYER.rglob("*.bbappend")) == []


def test_names_that_replaced_recipes_answer_to_are_none_of_ours() -> None:
    names = {
        n for entry in packages.replaced().values() for key in ("provides", "rprovides") for n in entry.get(key, [])
    }
    names |= {"python3-" + name for name in packages.wheels()}
    assert names & recipes(OURS) == set()


def test_layer_warns_whoever_adds_it() -> None:
    assert "TEST ONLY" in (paths.LAYER / "conf/layer.conf").read_text()
    for path in paths.LAYER.rglob("*.bb"):
        assert "TEST ONLY" in path.read_text(), path


def test_image_holds_only_our_packages_and_listed_replacements() -> None:
    """Of an image that was built: every package comes from our layer, from the layers as they are, or from the list."""
    build = bitbake.Build(paths.RELEASES[0], paths.work_dir())
    manifest = next(iter(sorted(build.images.glob("edgeai-image-*.manifest"))), None)
    if manifest is None:
        pytest.skip(f"no image in {build.images}; recipes-tests/testdistro build {build.release}")
    unchanged = {
        "base-files",
        "os-release",
        "packagegroup-core-boot",
        "run-postinsts",
        "systemd-conf",
        "systemd-serialgetty",
        "volatile-binds",
        "python3-pyserial",
        "python3-pyudev",
    }
    known = recipes(OURS) | set(packages.replaced()) | {"python3-" + name for name in packages.wheels()} | unchanged
    for line in manifest.read_text().splitlines():
        package = line.split()[0]
        directory = build.tmp / "pkgdata" / "raspberrypi4-64" / "runtime"
        entry = (directory / package) if (directory / package).is_file() else None
        named = re.search(r"^PN: (\S+)", entry.read_text(), re.M) if entry else None
        recipe = named[1] if named else package
        assert recipe in known or package in known, (
            f"{package} (of {recipe}) is neither ours, unchanged nor listed as replaced"
        )
