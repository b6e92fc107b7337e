"""Two Bazel builds never run at once, and the limits are no part of what is built: real BitBake, recipes that only say when they run."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import pytest

from layer.workspace import Workspace, empty_build

TOYS = ("toy-foreign-a", "toy-foreign-b", "toy-own-a", "toy-own-b")

# Only the toys are parsed. INHERIT and the like are what a build has anyway.
LOCAL_CONF = """
MACHINE = "qemuarm64"
DISTRO = "nodistro"
BB_NUMBER_THREADS = "4"
BBMASK = "/openembedded-core/meta/recipes- /meta-openembedded/ /meta-edgeai/recipes-"
INHERIT_DISTRO = "sstate"
ASSUME_PROVIDED += "binutils-cross-aarch64 virtual/aarch64-oe-linux-binutils virtual/cross-binutils virtual/fakeroot-native pseudo-native"
DL_DIR = "${TOPDIR}/downloads"
SSTATE_DIR = "${TOPDIR}/sstate"
"""


def toy_build(base: Workspace, name: str, log: Path, **limits: str) -> Workspace:
    project = base.build.project
    layers = [
        base.layers / "openembedded-core" / "meta",
        base.layers / "meta-openembedded" / "meta-oe",
        base.layers / "meta-openembedded" / "meta-python",
        project / "meta-edgeai",
        project / "recipes-tests" / "layer" / "toys",
    ]
    return empty_build(base, name, layers, conf(log, **limits))


def conf(log: Path, **limits: str) -> str:
    return LOCAL_CONF + f'TOY_LOG = "{log}"\n' + "".join(f'{key} = "{value}"\n' for key, value in limits.items())


def intervals(log: Path) -> dict[str, tuple[float, float]]:
    seen: dict[str, dict[str, float]] = {}
    for line in log.read_text().splitlines():
        what, name, when = line.split()
        seen.setdefault(name, {})[what] = float(when)
    return {name: (times["start"], times["end"]) for name, times in seen.items()}


def assert_one_at_a_time(log: Path) -> None:
    runs = sorted(intervals(log).values())
    for (_, end), (start, _) in zip(runs, runs[1:], strict=False):
        assert end <= start, f"two at once:\n{log.read_text()}"


def build(toys: Workspace, task: str = "compile", *names: str) -> str:
    done = toys.run("bitbake", "-c", task, *(names or TOYS), timeout=900)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(params=["wrynose", "scarthgap"])
def release(request: pytest.FixtureRequest) -> Workspace:
    return request.getfixturevalue(request.param)


@pytest.fixture
def log(release: Workspace) -> Path:
    path = release.build.top / "toys.log"
    path.unlink(missing_ok=True)
    return path


def test_recipes_of_one_build_take_turns_and_new_limits_rebuild_nothing(release: Workspace, log: Path) -> None:
    lock = release.build.top / "toys.lock"
    toys = toy_build(
        release, "toys", log, EDGEAI_BAZEL_LOCK=str(lock), EDGEAI_BAZEL_JOBS="2", EDGEAI_BAZEL_MEM_MIB="4096"
    )
    build(toys)
    assert set(intervals(log)) == set(TOYS)
    assert_one_at_a_time(log)

    before = log.read_text()
    (toys.folder / "conf" / "local.conf").write_text(
        conf(
            log,
            EDGEAI_BAZEL_LOCK=str(lock),
            EDGEAI_BAZEL_JOBS="8",
            EDGEAI_BAZEL_MEM_MIB="16384",
            EDGEAI_BAZEL_JVM_MIB="4096",
        )
    )
    build(toys)
    assert log.read_text() == before, "a change of limits ran the compile step again"

    # What the limits became: in a file of their own, that a forced run writes anew.
    build(toys, "cleansstate", "toy-foreign-a")
    build(toys, "compile", "toy-foreign-a")
    (rc,) = toys.folder.glob("tmp*/work/*/toy-foreign-a/*/edgeai.bazelrc")
    text = rc.read_text()
    assert "--jobs=8" in text
    assert "16384" in text
    (script,) = toys.folder.glob("tmp*/work/*/toy-foreign-a/*/temp/run.do_compile")
    script_text = script.read_text()
    assert "tflite_with_xnnpack=true" in script_text
    assert "--jobs=auto" not in script_text
    (note,) = toys.folder.glob("tmp*/work/*/toy-foreign-a/*/temp/log.do_compile")
    assert note.read_text().count("Bazel may run 8 jobs") == 1


def test_two_build_folders_of_one_machine_take_turns_too(release: Workspace, log: Path) -> None:
    lock = release.build.top / "toys.lock"
    one = toy_build(release, "toys-1", log, EDGEAI_BAZEL_LOCK=str(lock))
    two = toy_build(release, "toys-2", log, EDGEAI_BAZEL_LOCK=str(lock))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(build, one, "compile", "toy-foreign-a", "toy-own-a"),
            pool.submit(build, two, "compile", "toy-foreign-b", "toy-own-b"),
        ]
        for run in runs:
            run.result()
    assert set(intervals(log)) == set(TOYS)
    assert_one_at_a_time(log)
