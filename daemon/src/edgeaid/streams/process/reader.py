"""`reader.py FD`: a program that reads a source, shut in, and without the source's password among its arguments.

Run as a file by an interpreter of its own, so that nothing of the stream's process comes along; standard library only.
The descriptor holds JSON:

    command   the program and its arguments
    describe  true: the command's arguments are a GStreamer pipeline that is run here, by GStreamer's library. Arguments
              of a program can be read by every user of the machine; what this process gets cannot.
    list      text of a list of sources that ffmpeg reads as the descriptor list_fd ("" = none), for the same reason
    reads     files and directories that it may read besides the system's own
    network   whether it may open connections

It ends with the process that started it, has no more rights than that one, writes no file, reads nothing of the
daemon's and of users' directories, and sends no signals (Landlock, as far as the kernel has it).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_NO_NEW_PRIVS: Final = 38

# linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
#: Rights over files by version of the kernel's interface: all that changes something, up to "truncate".
_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_TRUNCATE: Final = 1 << 14
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1
_READING: Final = _EXECUTE | _READ_FILE | _READ_DIR

#: What programs, their libraries, decoders and name resolution read. Not /var/lib, /home, /root, /etc/edgeai.
SYSTEM: Final = (
    "/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/proc", "/sys", "/dev", "/run/udev", "/run/systemd/resolve",
    "/run/resolvconf", "/run/NetworkManager", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
    "/etc/protocols", "/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/etc/localtime", "/etc/alternatives",
    "/etc/fonts", "/etc/gnutls", "/etc/libcamera", "/etc/OpenCL", "/etc/vulkan", "/etc/glvnd", "/etc/passwd",
)  # fmt: skip
#: Cameras and decoders are devices, which are written to.
DEVICES: Final = "/dev"


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(reads: list[str], writes: list[str], *, network: bool) -> int:
    """Give up rights for good. Returns the version of Landlock that was used, 0 = the kernel has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:  # an older kernel, or a filter of system calls that does not know it
        return 0
    rights = _RIGHTS[min(version, 3)]
    rules = _Ruleset(rights)
    size = 8
    if version >= 4:
        rules.net, size = _BIND_TCP | (0 if network else _CONNECT_TCP), 16
    if version >= 6:
        rules.scoped, size = _SCOPE_SOCKETS | _SCOPE_SIGNALS, 24
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return 0
    for path in (*SYSTEM, *reads):
        _allow(libc, ruleset, path, _READING & rights)
    for path in (DEVICES, *writes):
        _allow(libc, ruleset, path, rights)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0):
        return 0
    os.close(ruleset)
    return int(version)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this system
    try:
        if not os.path.isdir(path):
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        rule = _Beneath(rights, fd)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


_PLAYING: Final = 4  # GstState
_PAUSED: Final = 3
_EOS, _ERROR, _CLOCK_LOST, _LATENCY = 1 << 0, 1 << 1, 1 << 10, 1 << 19  # GstMessageType


class _Mini(ctypes.Structure):
    """The beginning of a GstMessage: GstMiniObject and the type. Its layout is part of GStreamer 1's interface."""

    _fields_ = (
        ("type", ctypes.c_size_t), ("refcount", ctypes.c_int), ("lockstate", ctypes.c_int), ("flags", ctypes.c_uint),
        ("copy", ctypes.c_void_p), ("dispose", ctypes.c_void_p), ("free", ctypes.c_void_p),
        ("n_qdata", ctypes.c_uint), ("qdata", ctypes.c_void_p), ("kind", ctypes.c_uint),
    )  # fmt: skip


def run_pipeline(words: list[str]) -> int:
    """What gst-launch-1.0 does with these arguments; returns its exit status. Errors are printed as it prints them."""
    gst = ctypes.CDLL("libgstreamer-1.0.so.0")
    for name in ("gst_parse_launchv", "gst_element_get_bus", "gst_bus_timed_pop_filtered"):
        getattr(gst, name).restype = ctypes.c_void_p
    gst.gst_init(None, None)
    error = ctypes.POINTER(_GError)()
    array = (ctypes.c_char_p * (len(words) + 1))(*(w.encode() for w in words), None)
    pipeline = ctypes.c_void_p(gst.gst_parse_launchv(array, ctypes.byref(error)))
    if error:
        print(f"ERROR: {_text(error.contents.message)}", file=sys.stderr, flush=True)
        return 1
    bus = ctypes.c_void_p(gst.gst_element_get_bus(pipeline))
    # A failure is reported on the bus as well, with its reason.
    gst.gst_element_set_state(pipeline, _PLAYING)
    while True:
        kinds = _EOS | _ERROR | _CLOCK_LOST | _LATENCY
        message = gst.gst_bus_timed_pop_filtered(bus, ctypes.c_uint64(2**64 - 1), kinds)
        kind = _Mini.from_address(message).kind
        if kind == _EOS:
            return 0
        if kind == _ERROR:
            debug = ctypes.c_char_p()
            gst.gst_message_parse_error(ctypes.c_void_p(message), ctypes.byref(error), ctypes.byref(debug))
            print(f"ERROR: {_text(error.contents.message)}\n{_text(debug.value)}", file=sys.stderr, flush=True)
            return 1
        if kind == _LATENCY:
            gst.gst_bin_recalculate_latency(pipeline)
        elif kind == _CLOCK_LOST:
            gst.gst_element_set_state(pipeline, _PAUSED)
            gst.gst_element_set_state(pipeline, _PLAYING)
        gst.gst_mini_object_unref(ctypes.c_void_p(message))


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")


def main(fd: int) -> None:
    """Entry point."""
    size = os.fstat(fd).st_size
    task: dict[str, Any] = json.loads(os.pread(fd, size, 0))
    os.close(fd)
    command: list[str] = task["command"]
    if task["list"]:
        sources = os.memfd_create("edgeai-sources")
        os.write(sources, task["list"].encode())
        os.lseek(sources, 0, os.SEEK_SET)
        os.dup2(sources, task["list_fd"])
    os.environ["GSETTINGS_BACKEND"] = "memory"  # a desktop's settings are none of its business, nor could it keep them
    writes = []
    if registry := registry_directory():
        writes.append(registry)
        os.environ["GST_REGISTRY"] = f"{registry}/registry.{os.uname().machine}.bin"
    program = os.path.realpath(command[0])
    confine([*task["reads"], *plugin_paths(), os.path.dirname(program)], writes, network=task["network"])
    if task["describe"]:
        status = run_pipeline(command[1:])
        os._exit(status)
    try:
        os.execv(command[0], command)  # noqa: S606  no shell is wanted
    except OSError as error:
        print(f"ERROR: {command[0]}: {error.strerror}", file=sys.stderr)
    os._exit(127)


def registry_directory() -> str:
    """Where GStreamer keeps what it has seen, made if need be: else it looks through all its plug-ins at each start.

    "" where the environment says another place, or none can be made.
    """
    if os.environ.get("GST_REGISTRY"):
        return ""
    cache = os.environ.get("CACHE_DIRECTORY", "").split(":")[0] or os.path.expanduser("~/.cache")
    registry = f"{cache}/gstreamer-1.0"
    try:
        os.makedirs(registry, exist_ok=True)
    except OSError:
        return ""
    return registry


def plugin_paths() -> list[str]:
    """Where else libraries and plug-ins lie."""
    return [p for key in ("LD_LIBRARY_PATH", "GST_PLUGIN_PATH", "GST_PLUGIN_PATH_1_0") for p in _paths(key)]


def _paths(key: str) -> list[str]:
    return [p for p in os.environ.get(key, "").split(":") if p]


if __name__ == "__main__":
    main(int(sys.argv[1]))
