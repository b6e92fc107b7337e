"""What a board gets that the others do not: device trees, kernel, and the settings of an Edge TPU on PCIe."""

from __future__ import annotations

import re

import pytest

from layer.test_recipes import MASK, build_directory
from layer.workspace import BITBAKE_NAMES, RELEASES

NAMES = "MACHINE PREFERRED_VERSION_linux-raspberrypi KERNEL_DEVICETREE KBUILD_DEFCONFIG EDGEAI_CONFIG_TXT CMDLINE VC4DTBO".split()
#: Board -> device tree that it starts with, lines of config.txt, overlay, and the kernel configuration that has to be named.
PCIE = {
    "raspberrypi5": ("bcm2712-rpi-5-b.dtb", "|dtparam=pciex1|dtoverlay=pcie-32bit-dma-pi5", "pcie-32bit-dma-pi5", "bcm2711_defconfig"),
    "raspberrypi-cm5-io-board": (
        "bcm2712-rpi-cm5-cm5io.dtb", "|dtparam=pciex1|dtoverlay=pcie-32bit-dma-pi5", "pcie-32bit-dma-pi5", "bcm2711_defconfig",
    ),
    "raspberrypi-cm4": ("bcm2711-rpi-cm4.dtb", "|otg_mode=1|dtoverlay=pcie-32bit-dma", "pcie-32bit-dma", ""),
    "raspberrypi-armv8": ("bcm2712-rpi-5-b.dtb", "|[cm4]|dtoverlay=pcie-32bit-dma|[pi5]|", "pcie-32bit-dma-pi5", ""),
}  # fmt: skip


def settings(release: str, machine: str, *features: str) -> dict[str, str]:
    """Values of NAMES in the global configuration; "" where one is not set there."""
    own = build_directory(release, machine, *features)
    done = own.run("bitbake", "-e", settings=MASK, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    values = dict(re.findall(r'^(?:export )?(\S+)="(.*)"$', done.stdout, re.M))
    return {name: values.get(name, "") for name in NAMES}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("machine", PCIE)
def test_a_board_with_pcie_gets_what_the_edge_tpu_needs(release: str, machine: str) -> None:
    tree, lines, overlay, defconfig = PCIE[machine]
    values = settings(release, machine, "edgetpu-pcie")
    assert values["MACHINE"] == BITBAKE_NAMES.get(machine, machine)
    assert values["PREFERRED_VERSION_linux-raspberrypi"] == "6.12.%"
    assert values["KBUILD_DEFCONFIG"] == defconfig
    assert values["EDGEAI_CONFIG_TXT"].startswith(lines)
    assert {"pcie_aspm=off", "cgroup_enable=memory"} <= set(values["CMDLINE"].split())
    shipped = {name.rsplit("/", 1)[-1] for name in values["KERNEL_DEVICETREE"].split()}
    assert {tree, f"{overlay}.dtbo"} <= shipped


@pytest.mark.parametrize("release", RELEASES)
def test_a_raspberry_pi_4_keeps_the_kernel_of_its_layer(release: str) -> None:
    plain, asked = settings(release, "raspberrypi4-64"), settings(release, "raspberrypi4-64", "edgetpu-pcie")
    assert plain["PREFERRED_VERSION_linux-raspberrypi"] == {"wrynose": "6.18.%", "scarthgap": "6.6.%"}[release]
    assert asked == plain


@pytest.mark.parametrize("release", RELEASES)
def test_one_image_for_all_boards_has_their_device_trees(release: str) -> None:
    trees = settings(release, "raspberrypi-armv8")["KERNEL_DEVICETREE"]
    for board in ("bcm2710-rpi-3-b", "bcm2710-rpi-zero-2", "bcm2711-rpi-4-b", "bcm2711-rpi-cm4", "bcm2712-rpi-5-b"):
        assert f"broadcom/{board}.dtb" in trees.split()


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("machine", ["raspberrypi-armv8", "raspberrypi5"])
def test_a_screen_has_a_driver_on_a_raspberry_pi_5(release: str, machine: str) -> None:
    values = settings(release, machine, "weston")
    assert values["VC4DTBO"] == "vc4-kms-v3d"
    shipped = {name.rsplit("/", 1)[-1] for name in values["KERNEL_DEVICETREE"].split()}
    # The firmware takes the board's variant by this map.
    assert {"overlay_map.dtb", "vc4-kms-v3d.dtbo", "vc4-kms-v3d-pi4.dtbo", "vc4-kms-v3d-pi5.dtbo"} <= shipped
