"""The whole of OpenEmbedded with this layer: parse, dry run of images, yocto-check-layer. Minutes each, so most are slow."""

from __future__ import annotations

import re

import pytest

from layer.workspace import MACHINES, RELEASES, Workspace, empty_build, feature_names, workspace
from rig.paths import Missing

#: Not part of "all features": places that this machine lacks, halves of a choice, and what only another release or target has.
LEFT_OUT = {"mirror", "offline-sources", "power-cool", "power-fast", "tflite", "testimage", "small-disk", "cve"}
#: Warnings of others: no network for uninative here; hosts that oe-core has not listed.
KNOWN = re.compile("uninative|has not been validated|No bb files in default matched|Host distribution")


def complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match("(ERROR|WARNING)", line) and not KNOWN.search(line)]


def place(release: str, machine: str, *features: str) -> Workspace:
    try:
        return workspace(release, machine, *features)
    except Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_all_features_together_parse_without_a_warning(release: str) -> None:
    features = [f for f in feature_names() if f not in LEFT_OUT]
    done = place(release, "raspberrypi4-64", *features).run("bitbake", "-p", timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:]
    assert complaints(done.stdout) == []


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("image", ["edgeai-image", "edgeai-image-dev"])
def test_every_task_of_an_image_can_be_resolved(release: str, machine: str, image: str) -> None:
    done = place(release, machine).run("bitbake", "-n", image, timeout=7200)
    assert done.returncode == 0, "\n".join(complaints(done.stdout)) or done.stdout[-3000:]
    assert complaints(done.stdout) == []


@pytest.mark.slow
def test_the_image_of_a_plain_build_needs_no_accelerator_runtime_and_no_rust() -> None:
    own = place("wrynose", "raspberrypi4-64")
    done = own.run("bitbake", "-g", "edgeai-image", timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:]
    needed = set((own.folder / "pn-buildlist").read_text().split())
    assert {"edgeaid", "edgeai-models", "edgeai-power", "edgeai-config", "python3-ai-edge-litert-bin"} <= needed
    for absent in (
        "libedgetpu",
        "libmvnc",
        "openvino-inference-engine",
        "tensorflow",
        "python3-tflite-runtime",
        "python3-grpcio",
        "python3-pyzmq",
        "gasket-module",
    ):
        assert absent not in needed


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_yocto_check_layer_passes(release: str) -> None:
    base = place(release, "qemuarm64")
    layers = base.layers
    # The checker adds the layer and what it depends on by itself, one after the other.
    own = empty_build(
        base, "check-layer", [layers / "openembedded-core/meta"], 'MACHINE = "qemuarm64"\nDISTRO = "nodistro"\n'
    )
    done = own.run(
        "yocto-check-layer", str(own.build.project / "meta-edgeai"), "--no-auto-dependency",
        "--dependency", str(layers / "openembedded-core/meta"), str(layers / "meta-openembedded/meta-oe"), str(layers / "meta-openembedded/meta-python"),
        timeout=7200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
