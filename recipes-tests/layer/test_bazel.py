"""Two Bazel builds never run at once, and the limits are not part of what is built: real BitBake, recipes that only say when they run."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import pytest

from layer.workspace import Workspace, empty_build, workspace
from rig.paths import Missing

#: Recipes of the toy layer whose Bazel runs, and how: a task of one's own, meta-tensorflow's classes, no class at all, a script, a
#: function that is handed the command.
TOYS = (
    "toy-own-a", "toy-own-b", "toy-class-a", "toy-class-a-native", "toy-class-b", "toy-bootstrap", "toy-plain", "toy-python",
    "toy-script", "toy-handed-on",
)  # fmt: skip

# Only the toys are parsed. INHERIT_DISTRO and the like are what a build has anyway.
LOCAL_CONF = """
MACHINE = "qemuarm64"
DISTRO = "nodistro"
BB_NUMBER_THREADS = "8"
BBMASK = "/openembedded-core/meta/recipes- /meta-openembedded/ /meta-edgeai/recipes- /meta-tensorflow/recipes- /meta-edgeai/dynamic-layers/"
INHERIT_DISTRO = "sstate"
ASSUME_PROVIDED += "binutils-cross-aarch64 virtual/aarch64-oe-linux-binutils virtual/cross-binutils virtual/fakeroot-native pseudo-native \
  python3 bazel-native openjdk-11-native openjdk-21-native"
DL_DIR = "${TOPDIR}/downloads"
SSTATE_DIR = "${TOPDIR}/sstate"
"""


def toy_build(base: Workspace, name: str, log: Path, **limits: str) -> Workspace:
    project = base.build.project
    layers = [
        base.layers / "openembedded-core" / "meta",
        base.layers / "meta-openembedded" / "meta-oe",
        base.layers / "meta-openembedded" / "meta-python",
        base.layers / "meta-tensorflow",
        project / "meta-edgeai",
        project / "recipes-tests" / "layer" / "toys",
    ]
    return empty_build(base, name, layers, conf(base, log, **limits))


def conf(base: Workspace, log: Path, **limits: str) -> str:
    places = {"TOY_LOG": str(log), "TOY_BIN": str(base.build.project / "recipes-tests/layer/toys/bin")}
    return LOCAL_CONF + "".join(f'{key} = "{value}"\n' for key, value in (places | limits).items())


def intervals(log: Path) -> list[tuple[float, float, str]]:
    """(start, end, recipe) of every run of Bazel, in order."""
    begun: dict[str, float] = {}
    runs = []
    for line in log.read_text().splitlines():
        what, name, when = line.split()
        if what == "start":
            assert name not in begun, f"{name} runs two at once"
            begun[name] = float(when)
        else:
            runs.append((begun.pop(name), float(when), name))
    assert not begun
    return sorted(runs)


def assert_one_at_a_time(log: Path) -> None:
    runs = intervals(log)
    for (_, end, _), (start, _, _) in zip(runs, runs[1:], strict=False):
        assert end <= start, f"two at once:\n{log.read_text()}"


def told(log: Path) -> dict[str, tuple[str, str, str]]:
    """Recipe: its command line, the JVM's options and the exported options of its last run."""
    lines = Path(f"{log}.told").read_text().splitlines()
    return {name: (line, java, flags) for name, line, java, flags in (one.split("|") for one in lines)}


def build(toys: Workspace, task: str = "install", *names: str) -> str:
    done = toys.run("bitbake", "-c", task, *(names or TOYS), timeout=900)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(params=["wrynose", "scarthgap"])
def release(request: pytest.FixtureRequest) -> Workspace:
    try:
        return workspace(request.param, "raspberrypi4-64", "tensorflow")
    except Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")


@pytest.fixture
def log(release: Workspace) -> Path:
    path = release.build.top / "toys.log"
    for file in (path, Path(f"{path}.told")):
        file.unlink(missing_ok=True)
    return path


def test_whatever_runs_bazel_takes_turns_and_new_limits_rebuild_nothing(release: Workspace, log: Path) -> None:
    lock = release.build.top / "toys.lock"
    limits = {"EDGEAI_BAZEL_LOCK": str(lock), "EDGEAI_BAZEL_JOBS": "2", "EDGEAI_BAZEL_MEM_MIB": "4096"}
    toys = toy_build(release, "toys", log, **limits)
    build(toys)
    assert sorted(name for _, _, name in intervals(log)) == sorted(TOYS)
    assert_one_at_a_time(log)

    before = log.read_text()
    new = {"EDGEAI_BAZEL_JOBS": "8", "EDGEAI_BAZEL_MEM_MIB": "16384", "EDGEAI_BAZEL_JVM_MIB": "4096"}
    (toys.directory / "conf" / "local.conf").write_text(conf(release, log, **(limits | new)))
    build(toys)
    assert log.read_text() == before, "a change of limits ran a step again"

    # What the limits became: in a file of their own, that a forced run writes anew.
    build(toys, "cleansstate", "toy-class-b", "toy-own-a", "toy-bootstrap")
    build(toys, "compile", "toy-class-b", "toy-own-a", "toy-bootstrap")
    for name in ("toy-class-b", "toy-own-a"):
        line, java, _ = told(log)[name]
        assert line.count(".bazelrc") == 1
        assert "--host_jvm_args=-Xmx4096m" in line
        assert java == "-Xmx4096m"
        (rc,) = toys.directory.glob(f"tmp*/work/*/{name}/*/edgeai.bazelrc")
        assert "--jobs=8" in rc.read_text()
        assert "16384" in rc.read_text()
    assert "--jobs=8 --local_ram_resources=16384" in told(log)["toy-bootstrap"][0]
    assert told(log)["toy-bootstrap"][1] == "-Xmx4096m"
    line, _, flags = told(log)["toy-class-b"]
    assert "-c opt" in flags, "options that are not limits stay"
    assert "--jobs" not in flags + line, "the recipe's own number would win over the file"
    assert "HOST_RAM" not in line
    (note,) = toys.directory.glob("tmp*/work/*/toy-class-b/*/temp/log.do_compile")
    assert note.read_text().count("Bazel may run 8 jobs") == 1


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("toy-unlimited", "do_compile runs Bazel as bazel without the limits of this host; put the variable EDGEAI_BAZEL_STARTUP between"),
        ("toy-greedy", "do_compile gives Bazel --jobs=64, which wins over the limits of this host; leave the option out"),
        ("toy-hidden", "do_compile runs Bazel without the limits of this host"),
        ("toy-half", "do_compile runs Bazel as bazel without the limits of this host"),
        ("toy-deaf", "do_compile gives Bazel --ignore_all_rc_files, with which it reads no limits of this host"),
    ],
)  # fmt: skip
def test_a_recipe_whose_bazel_would_keep_no_limit_is_refused_with_the_way_out(
    release: Workspace, log: Path, recipe: str, reason: str
) -> None:
    toys = toy_build(release, "toys-refused", log)
    done = toys.run("bitbake", "-c", "compile", recipe, timeout=900)
    assert done.returncode != 0
    assert f"{recipe} was skipped: {reason}" in done.stdout, done.stdout[-2000:]
    assert not log.exists()


def test_a_recipe_that_only_speaks_of_bazel_is_left_alone(release: Workspace, log: Path) -> None:
    toys = toy_build(release, "toys-bystander", log)
    done = toys.run("bitbake", "-e", "toy-bystander", timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "lockfiles" not in "".join(line for line in done.stdout.splitlines() if "do_compile" in line)
    assert "JAVA_TOOL_OPTIONS=" not in done.stdout


def test_two_build_directories_of_one_machine_take_turns_too(release: Workspace, log: Path) -> None:
    lock = release.build.top / "toys.lock"
    one = toy_build(release, "toys-1", log, EDGEAI_BAZEL_LOCK=str(lock))
    two = toy_build(release, "toys-2", log, EDGEAI_BAZEL_LOCK=str(lock))
    first, second = TOYS[::2], TOYS[1::2]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for run in [pool.submit(build, one, "install", *first), pool.submit(build, two, "install", *second)]:
            run.result()
    assert sorted(name for _, _, name in intervals(log)) == sorted(TOYS)
    assert_one_at_a_time(log)
