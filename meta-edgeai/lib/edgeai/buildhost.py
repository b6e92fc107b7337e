"""How much of this machine a Bazel build may take.

Bazel's own default is the whole machine, and it asks the kernel how large that is: inside a container with a memory limit it
takes the host's size and is killed. Everything here is plain arithmetic on four numbers, so it can be tested without a machine.
"""

import os

MIB = 1 << 20
GIB = 1 << 30

# Measured with gcc 12 at -O2: compile steps of TensorFlow Lite's kernels take 0.25 to 0.95 GiB (fully_connected.cc). TensorFlow's own
# take more; users report killed compilers with six jobs on 10 GB (tensorflow issue 42066) and success with few jobs on 8 GB
# (tensorflow_cc issue 255). Twice what was measured, so that 10 GB give three jobs and 8 GB give two.
MIB_PER_JOB = 2048
# For the rest of the build, the desktop and the file cache: at least this, or an eighth of the memory. BitBake itself, measured while it
# parses all layers: 1 GiB, while tasks run a quarter of that.
RESERVE_MIB = 768
# Heap of the Bazel server: a quarter of the memory, which is Java's own default, within bounds. Less than 1 GiB ended in "Java heap
# space" for users who built TensorFlow (issue 46120); a heap that is not used costs nothing.
JVM_MIN_MIB = 1024
JVM_MAX_MIB = 4096
# One step of make for C++ with many templates: what was measured above.
MAKE_MIB_PER_JOB = 1024

# Only plain functions here, results are dicts: BitBake reads the source of everything in a registered module to put it into
# signatures, and fails on a class made by a call (namedtuple).


def limits(memory, cpus):
    """Bazel's limits on a machine (or in a container) with `memory` bytes of RAM and `cpus` usable processors.

    >>> limits(8 * GIB, 8)
    {'jobs': 2, 'memory_mib': 5120, 'jvm_mib': 2048}
    """
    total = max(1, memory // MIB)
    reserve = max(RESERVE_MIB, total // 8)
    jvm = min(JVM_MAX_MIB, max(JVM_MIN_MIB, total // 4))
    actions = total - reserve - jvm
    if actions < MIB_PER_JOB:
        # Too small for comfort: one job, and a hint that lets Bazel start any single action.
        return {"jobs": 1, "memory_mib": MIB_PER_JOB, "jvm_mib": jvm}
    return {"jobs": max(1, min(cpus, actions // MIB_PER_JOB)), "memory_mib": actions, "jvm_mib": jvm}


def make_jobs(cpus, memory=None):
    """Steps of make at a time for C++ sources whose compiler needs much memory.

    >>> make_jobs(16, 8 * GIB)
    7
    """
    total = (memory_bytes() if memory is None else memory) // MIB
    return max(1, min(cpus, (total - max(RESERVE_MIB, total // 8)) // MAKE_MIB_PER_JOB))


def _read(path):
    try:
        with open(path, encoding="ascii", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return None


def _number(text):
    """A cgroup limit: bytes, or None for "max" and whatever else is not a number."""
    return int(text) if text and text.isdigit() else None


def _cgroup_directories(root):
    """Directories of this process's own control group and its parents, version 2 and version 1.

    A limit may be set at any level, the smallest counts. Inside a container the own group is usually mounted as the root.
    """
    for line in (_read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        mount = os.path.join(root, "sys/fs/cgroup")
        if controllers:
            mount = os.path.join(mount, controllers.split(",")[0])
        parts = [p for p in path.split("/") if p and p != ".."]
        for depth in range(len(parts), -1, -1):
            yield controllers, os.path.join(mount, *parts[:depth])


def memory_bytes(root="/"):
    """Usable memory: the machine's, or less where a control group (version 1 or 2) says so."""
    sizes = []
    for line in (_read(os.path.join(root, "proc/meminfo")) or "").splitlines():
        if line.startswith("MemTotal:"):
            sizes.append(int(line.split()[1]) * 1024)
    for controllers, directory in _cgroup_directories(root):
        if not controllers:
            for name in ("memory.max", "memory.high"):
                sizes.append(_number(_read(os.path.join(directory, name))))
        elif "memory" in controllers.split(","):
            sizes.append(_number(_read(os.path.join(directory, "memory.limit_in_bytes"))))
    sizes = [s for s in sizes if s]
    return min(sizes) if sizes else 4 * GIB


def cpu_count(root="/", affinity=None):
    """Usable processors: those this process may run on, or fewer where a control group caps processor time."""
    if affinity is None:
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [affinity]
    for controllers, directory in _cgroup_directories(root):
        if not controllers:
            quota, _, period = (_read(os.path.join(directory, "cpu.max")) or "").partition(" ")
        elif "cpu" in controllers.split(","):
            quota = _read(os.path.join(directory, "cpu.cfs_quota_us")) or ""
            period = _read(os.path.join(directory, "cpu.cfs_period_us")) or ""
        else:
            continue
        if quota.isdigit() and period.isdigit() and int(period):
            counts.append(max(1, int(quota) // int(period)))
    return min(counts)


def host_limits(root="/"):
    """limits() of the machine this runs on."""
    return limits(memory_bytes(root), cpu_count(root))


def lock_path():
    """One lock file per user of this machine: memory is shared by all build directories, so the lock is too.

    Not shared between users: the kernel refuses to open another user's file in a sticky directory (fs.protected_regular).
    """
    return os.path.join("/tmp", f"edgeai-bazel-{os.getuid()}.lock")
