"""The whole of OpenEmbedded with this layer: parse, dry run of images, dependency graph, yocto-check-layer.

Minutes each, so most are slow. The fast suite has one cell of the matrix: every recipe of every layer parsed with all features, and a
dry run of both images with them (test_all_features_together...).
"""

from __future__ import annotations

import re

import pytest

from layer.workspace import MACHINES, RELEASES, Workspace, empty_build, feature_names, workspace
from rig.paths import Missing, need

#: Not part of "all features": places that this machine lacks, halves of a choice, and what only another release or target has.
LEFT_OUT = {"mirror", "public-mirrors", "offline-sources", "power-cool", "power-fast", "tflite", "testimage", "cve"}
#: What a release has no recipe for.
ABSENT: dict[str, set[str]] = {"wrynose": set(), "scarthgap": {"json"}}
#: Warnings of others: no network for uninative here; hosts that oe-core has not listed.
KNOWN = re.compile("uninative|has not been validated|No bb files in default matched|Host distribution")


def together(release: str) -> list[str]:
    """All features that a release can have in one image."""
    return [name for name in feature_names() if name not in LEFT_OUT | ABSENT[release]]


def complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match("(ERROR|WARNING)", line) and not KNOWN.search(line)]


def place(release: str, machine: str, *features: str) -> Workspace:
    try:
        if "testimage" in features:
            need("ip", "ping", "ps", "scp", "ssh", "stty")  # what oe-core's class wants of the host
        return workspace(release, machine, *features)
    except Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")


def quick(own: Workspace) -> str:
    """Settings for a dry run without a process per task, and for writing down what runs Bazel (dryrun/classes)."""
    return f'BBPATH .= ":{own.build.project}/recipes-tests/layer/dryrun"\nINHERIT += "dry-run-quick bazel-census"\n'


def dry_run(own: Workspace, *images: str, settings: str = "") -> int:
    """Number of tasks that BitBake found and put in order. Fails on an error, and on a warning that is ours."""
    done = own.run("bitbake", "--dry-run", "--no-setscene", *images, timeout=7200, settings=quick(own) + settings)
    assert done.returncode == 0, "\n".join(complaints(done.stdout)) or done.stdout[-3000:]
    assert complaints(done.stdout) == []
    return int(re.findall(r"Attempted (\d+) tasks", done.stdout)[-1])


def needed(own: Workspace, *targets: str) -> set[str]:
    """Recipes that the graph of an image holds. After a dry run of the same configuration nothing is parsed again."""
    done = own.run("bitbake", "-g", *targets, timeout=3600, settings=quick(own))
    assert done.returncode == 0, done.stdout[-3000:]
    return set((own.directory / "pn-buildlist").read_text().split())


@pytest.mark.parametrize("release", ["wrynose", pytest.param("scarthgap", marks=pytest.mark.slow)])
def test_all_features_together_parse_and_resolve_without_a_warning(release: str) -> None:
    assert dry_run(place(release, "raspberrypi4-64", *together(release)), "edgeai-image", "edgeai-image-dev") > 5000


@pytest.mark.slow
def test_a_release_without_orjson_says_which_one_has_it() -> None:
    own = place("scarthgap", "raspberrypi4-64", "json")
    done = own.run("bitbake", "--dry-run", "edgeai-image", timeout=7200, settings=quick(own))
    assert done.returncode != 0
    assert "meta-python of scarthgap has no python3-orjson; wrynose has" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_what_is_left_out_of_all_features_parses_and_resolves_too(release: str) -> None:
    # power-cool is the other half of power-fast; mirror has its addresses from kas's environment, which is not in play here.
    features = sorted(LEFT_OUT - {"power-cool", "mirror", "public-mirrors"})
    assert dry_run(place(release, "raspberrypi4-64", *features), "edgeai-image", "edgeai-image-dev") > 3000


@pytest.fixture(scope="module", params=RELEASES)
def only_needed(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A release, and settings that leave out what no image needs of meta-openembedded, more than half of all recipes.

    Those are read once, for the graph of both images with all features, instead of once for each machine.
    """
    release: str = request.param
    own = place(release, "raspberrypi4-64", *together(release))
    needed(own, "edgeai-image", "edgeai-image-dev")
    graph = (own.directory / "task-depends.dot").read_text()
    wanted = set(re.findall(r"/meta-openembedded/[^/]+/(recipes-[^/]+/[^/]+/[^/]+\.bb)\b", graph))
    assert len(wanted) > 10
    # A recipe that another layer appends to has to be there.
    appended = {append.stem.split("_")[0] for append in own.layers.glob("meta-raspberrypi/**/*.bbappend")}
    kept = [re.escape(recipe) for recipe in wanted] + [f"{re.escape(name)}[_.]" for name in appended]
    return release, f'BBMASK += "/meta-openembedded/(?!.*/({"|".join(sorted(kept))})).*/recipes-"\n'


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_every_task_of_both_images_can_be_resolved(only_needed: tuple[str, str], machine: str) -> None:
    release, settings = only_needed
    assert dry_run(place(release, machine), "edgeai-image", "edgeai-image-dev", settings=settings) > 3000


RUNTIME_RECIPES = {
    "edgetpu": {"libedgetpu", "python3-pycoral"},
    "ncs": {"libmvnc"},
    "ncs2": {"openvino-myriad"},
    "k210": {"edgeaid-k210", "python3-pyserial"},
    "grpc": {"edgeaid-grpc", "python3-hpack"},
    "frigate": {"edgeaid-frigate", "python3-pyzmq"},
    "mqtt": {"edgeaid-mqtt", "python3-paho-mqtt"},
    "json": {"edgeaid-json", "python3-orjson"},
    "tensorflow": {"tensorflow"},
    "edgetpu-pcie": {"gasket-module"},
    "camera": {"edgeai-camera", "gstreamer1.0", "libcamera"},
    "weston": {"edgeai-screen", "weston"},
}
ALWAYS = {
    "edgeaid", "edgeai-models", "edgeai-power", "edgeai-config", "edgeai-provision", "python3-ai-edge-litert-bin",
    "linux-firmware-rpidistro",
}  # fmt: skip
#: In no image by itself: Intel's files, test-only parts, the other CPU runtime, boot loaders that a Raspberry Pi has no use for.
NEVER = {
    "mvnc-firmware",
    "openvino-vpu-firmware",
    "edgeai-standins",
    "python3-tflite-runtime",
    "ffmpeg",
    "x264",
    "libcamera-apps",
    "grub-efi",
    "systemd-boot",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtimes",
    [(), ("edgetpu",), ("ncs", "k210"), ("ncs2", "grpc", "frigate", "mqtt"), ("camera", "json")],
    ids=" ".join,
)
def test_the_graph_of_an_image_holds_exactly_the_runtimes_asked_for(runtimes: tuple[str, ...]) -> None:
    graph = needed(place("wrynose", "raspberrypi4-64", *runtimes), "edgeai-image")
    assert graph >= ALWAYS
    assert not graph & NEVER
    for runtime, recipes in RUNTIME_RECIPES.items():
        if runtime in runtimes:
            assert recipes <= graph, runtime
        else:
            assert not recipes & graph, f"{runtime} was not asked for"


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
