"""How much of a build host a Bazel build may take (edgeai.buildhost)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rig.paths import TOP

sys.path.insert(0, str(TOP / "meta-edgeai" / "lib"))

from edgeai import buildhost

GIB = buildhost.GIB


@pytest.mark.parametrize(
    ("ram", "cpus", "jobs"),
    [
        (2, 4, 1),
        (4, 4, 1),
        (4, 8, 1),
        (8, 8, 2),
        (8, 2, 2),
        (10, 6, 3),
        (16, 8, 5),
        (24, 2, 2),
        (24, 16, 8),
        (64, 16, 16),
        (64, 64, 26),
    ],
)
def test_jobs_follow_memory_first_and_processors_second(ram: int, cpus: int, jobs: int) -> None:
    assert buildhost.limits(ram * GIB, cpus)["jobs"] == jobs


@pytest.mark.parametrize("ram", [4, 6, 8, 16, 24, 32, 64, 256])
@pytest.mark.parametrize("cpus", [1, 2, 8, 64])
def test_actions_heap_and_reserve_together_never_exceed_the_memory(ram: int, cpus: int) -> None:
    got = buildhost.limits(ram * GIB, cpus)
    assert got["memory_mib"] + got["jvm_mib"] + buildhost.RESERVE_MIB <= ram * 1024
    assert got["jobs"] * buildhost.MIB_PER_JOB <= got["memory_mib"]


def test_a_host_too_small_for_comfort_still_builds_with_one_job() -> None:
    assert buildhost.limits(1 * GIB, 4) == {
        "jobs": 1,
        "memory_mib": buildhost.MIB_PER_JOB,
        "jvm_mib": buildhost.JVM_MIN_MIB,
    }


@pytest.mark.parametrize(("ram", "cpus", "jobs"), [(1, 8, 1), (4, 8, 3), (8, 16, 7), (8, 4, 4), (64, 16, 16)])
def test_make_runs_as_many_steps_as_fit_into_the_memory(ram: int, cpus: int, jobs: int) -> None:
    assert buildhost.make_jobs(cpus, ram * GIB) == jobs


def fake_host(root: Path, **files: str) -> str:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


MEMINFO = {"proc__meminfo": "MemTotal:       67108864 kB\nMemFree: 1 kB\n"}


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert buildhost.memory_bytes(fake_host(tmp_path, **MEMINFO)) == 64 * GIB


def test_a_container_limit_counts_and_not_the_machine(tmp_path: Path) -> None:
    root = fake_host(tmp_path, **MEMINFO, proc__self__cgroup="0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(str(8 * GIB))
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("250000 100000\n")
    assert buildhost.memory_bytes(root) == 8 * GIB
    assert buildhost.cpu_count(root, affinity=16) == 2


def test_the_smallest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    root = fake_host(tmp_path, **MEMINFO, proc__self__cgroup="0::/user.slice/build.scope\n")
    for directory, text in (("user.slice/build.scope", "max"), ("user.slice", str(6 * GIB)), ("", "max")):
        path = tmp_path / "sys/fs/cgroup" / directory
        path.mkdir(parents=True, exist_ok=True)
        (path / "memory.max").write_text(text + "\n")
    assert buildhost.memory_bytes(root) == 6 * GIB


def test_version_one_control_groups_are_read_too(tmp_path: Path) -> None:
    root = fake_host(tmp_path, **MEMINFO, proc__self__cgroup="9:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n")
    for name, text in (
        ("memory/memory.limit_in_bytes", str(4 * GIB)),
        ("cpu/cpu.cfs_quota_us", "100000"),
        ("cpu/cpu.cfs_period_us", "100000"),
    ):
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert buildhost.memory_bytes(root) == 4 * GIB
    assert buildhost.cpu_count(root, affinity=8) == 1


def test_a_lock_belongs_to_one_user_of_the_machine() -> None:
    assert str(os.getuid()) in buildhost.lock_path()
