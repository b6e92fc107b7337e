"""A real Bazel under the class, inside a memory control group: what it takes, how many steps it runs at a time, and who is killed.

Debian's bazel-bootstrap (4.2.3) builds a C++ library by real BitBake on scarthgap, whose meta-tensorflow class writes options that
this Bazel knows. Every compile step takes 0.75 GiB; the host counts as one of sixteen processors.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from layer.test_bazel import LOCAL_CONF
from layer.workspace import Workspace, empty_build, workspace
from rig.paths import Missing

GIB = 1 << 30
LIMIT = 3 * GIB
CPUS = 16
JAVA = Path("/usr/lib/jvm/java-17-openjdk-amd64")


@dataclass(slots=True)
class Group:
    """A memory control group of our own, version 1 or 2."""

    directory: Path
    unified: bool
    peak: int = 0
    steps: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def kills(self) -> int:
        file = "memory.events" if self.unified else "memory.oom_control"
        return int(re.search(r"^oom_kill (\d+)", (self.directory / file).read_text(), re.MULTILINE)[1])  # type: ignore[index]

    def _anonymous(self) -> int:
        """Bytes of the programs themselves; file caches, which the kernel gives back, do not count."""
        name = "anon" if self.unified else "total_rss"
        return int(re.search(rf"^{name} (\d+)", (self.directory / "memory.stat").read_text(), re.MULTILINE)[1])  # type: ignore[index]

    def watch(self) -> None:
        while not self.stop.wait(0.2):
            self.peak = max(self.peak, self._anonymous())
            names = []
            for pid in (self.directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            self.steps = max(self.steps, names.count("cc1plus"))


def _own_group() -> tuple[Path, bool]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/"), False
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return Path("/sys/fs/cgroup") / line[3:].lstrip("/"), True
    raise OSError("no control group")


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Group]:
    """This process and what it starts, inside a group with a limit. Skips where that cannot be had."""
    try:
        own, unified = _own_group()
        group = Group(own / f"edgeai-{os.getpid()}", unified)
        group.directory.mkdir()
        (group.directory / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit))
        (group.directory / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    watcher = threading.Thread(target=group.watch)
    watcher.start()
    try:
        yield group
    finally:
        group.stop.set()
        watcher.join()
        (own / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.directory.rmdir()
                break
            time.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build took."""

    built: bool
    seconds: float
    peak_mib: int
    steps: int
    kills: int

    def __str__(self) -> str:
        end = "built" if self.built else "failed"
        return f"{end} in {self.seconds:.0f} s, peak {self.peak_mib} MiB, {self.steps} steps at a time, {self.kills} processes killed"


def build(base: Workspace, name: str, *, ours: bool, **settings: str) -> Outcome:
    """Build the workload from nothing inside the group; `ours`: with meta-edgeai in the build, else meta-tensorflow alone."""
    project = base.build.project
    layers = [base.layers / "openembedded-core/meta", base.layers / "meta-openembedded/meta-oe"]
    layers += [base.layers / "meta-openembedded/meta-python", base.layers / "meta-tensorflow"]
    layers += [project / "recipes-tests/layer/workload", *([project / "meta-edgeai"] if ours else [])]
    text = LOCAL_CONF + "".join(
        f'{key} = "{value}"\n' for key, value in (settings | {"WORKLOAD_JAVA": str(JAVA)}).items()
    )
    own = empty_build(base, name, layers, text)
    with memory_group(LIMIT) as group:
        begin = time.monotonic()
        done = own.run("bitbake", "-c", "compile", "bazel-workload-native", timeout=3000)
        outcome = Outcome(done.returncode == 0, time.monotonic() - begin, group.peak >> 20, group.steps, group.kills())
    print(f"{name}: {outcome}")
    if done.returncode and not outcome.kills:
        raise AssertionError(done.stdout[-4000:])
    return outcome


@pytest.fixture(scope="module")
def scarthgap_with_bazel() -> Workspace:
    if not Path("/usr/bin/bazel-4").is_file() or not (JAVA / "bin/java").is_file():
        pytest.skip("Debian's bazel-bootstrap is not installed")
    try:
        return workspace("scarthgap", "raspberrypi4-64", "tensorflow")
    except Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")


def host_settings() -> dict[str, str]:
    """What the class would choose in this group on a host of sixteen processors."""
    return {"EDGEAI_BAZEL_JOBS": f"${{@edgeai.buildhost.limits(edgeai.buildhost.memory_bytes(), {CPUS})['jobs']}}"}


@pytest.mark.slow
def test_bazel_with_our_limits_fits_the_group_and_nothing_is_killed(scarthgap_with_bazel: Workspace) -> None:
    outcome = build(scarthgap_with_bazel, "workload-ours", ours=True, **host_settings())
    assert outcome.built
    assert outcome.kills == 0
    assert outcome.peak_mib < LIMIT >> 20
    (rc,) = (scarthgap_with_bazel.build.top / "workload-ours").glob(
        "tmp*/work/*/bazel-workload-native/*/edgeai.bazelrc"
    )
    assert f"--jobs={outcome.steps}\n" in rc.read_text(), "as many steps as the class allowed, and no more"


#: What Bazel itself, and meta-tensorflow's class, take on a host of sixteen processors: these words count the host's own.
WITHOUT = {
    "bazel": {"WORKLOAD_FLAGS": f"--jobs={CPUS} --local_cpu_resources={CPUS} --local_ram_resources=HOST_RAM*.67"},
    "meta-tensorflow": {"BAZEL_JOBS": str(CPUS // 4)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_without_the_class_the_size_of_the_host_counts_and_the_kernel_kills(
    scarthgap_with_bazel: Workspace, name: str
) -> None:
    outcome = build(scarthgap_with_bazel, f"workload-{name}", ours=False, **WITHOUT[name])
    assert outcome.steps > 1
    assert outcome.kills > 0
    assert not outcome.built
