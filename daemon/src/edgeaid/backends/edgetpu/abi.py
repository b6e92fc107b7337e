"""Does this libedgetpu fit this TFLite runtime? Asked in a throw-away process, because the answer can be SIGSEGV.

A delegate built with TensorFlow <= 2.6 headers (Google's own binary 16.0 among them) passes a 64-byte
TfLiteRegistration by value where runtimes since 2.12 read 88 bytes: the process dies inside the runtime. Nothing in
the library says which headers it was built with, so a child process tries it once on the model at hand, and only
success is remembered, per pair of files.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import DeviceError, InvalidModel, Unsupported
from ..tflite import interpreter as _tflite
from ..tflite.graph import Graph
from . import library as _edgetpu

#: Signals by which a process dies that followed a pointer of the wrong layout.
_CRASHES: Final = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL}
#: glibc's message where such a pointer was written through first, as on aarch64. Other aborts are libedgetpu's own.
_CORRUPTED: Final = re.compile(
    r"^(Fatal glibc error: |malloc|free\(\): |realloc\(\): |corrupted |double free|munmap_chunk|\*\*\* stack smashing)",
    re.MULTILINE,
)
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
#: Seconds for a whole trial: imports on a Pi (3), two opens of the stick (6), firmware upload, a large model.
_TIMEOUT: Final = 30.0


def fits(library: _edgetpu.Library, runtime: _tflite.Runtime, options: Mapping[str, Any]) -> bool:
    """True when this pair has been seen to work on this machine."""
    record = _record(library, runtime, options)
    return record is not None and record.is_file()


def check(
    library: _edgetpu.Library,
    runtime: _tflite.Runtime,
    device: _edgetpu.Accelerator,
    artifact: Path,
    options: Mapping[str, Any],
) -> None:
    """Run `artifact` through delegate and runtime in a child; the device must not be open here.

    Raises Unsupported when the pair does not fit (naming both), DeviceError when the device fails, InvalidModel for a
    bad file.
    """
    request = {
        "library": library.path,
        "family": runtime.family,
        "kind": device.kind,
        "path": device.path,
        "performance": str(options.get("performance", "std")),
        "artifact": str(artifact),
        "parent": os.getpid(),
    }
    command = [sys.executable, "-P", "-m", "edgeaid.backends.edgetpu.abi"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, errors="replace",
            timeout=float(options.get("probe_timeout", _TIMEOUT)), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"the Edge TPU at {device.path} did not answer a first trial in time; pull it and plug it in again"
        ) from None
    aborted = done.returncode == -signal.SIGABRT and _CORRUPTED.search(done.stderr)
    if -done.returncode in _CRASHES or aborted:
        raise Unsupported(
            f"{library.path} ({library.version}) crashes {runtime.name} with {signal.Signals(-done.returncode).name}: "
            "the two were built for different TensorFlow Lite delegate ABIs; install a libedgetpu built with "
            "TensorFlow 2.16.1 or newer headers (Google's binary 16.0 is too old)"
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        tail = " ".join(done.stderr.split())[-300:]
        raise DeviceError(f"the Edge TPU at {device.path} failed its first trial: {tail or done.returncode}") from None
    if answer.get("model_error"):
        raise InvalidModel(answer["model_error"])
    if answer.get("error"):
        raise DeviceError(answer["error"])
    _remember(_record(library, runtime, options), library, runtime)


def _record(library: _edgetpu.Library, runtime: _tflite.Runtime, options: Mapping[str, Any]) -> Path | None:
    """File whose presence means "this pair works"; None without the library's file or a cache directory."""
    file = _loaded_file(library.path)
    directory = (
        options.get("cache") or os.environ.get("EDGEAI_CACHE") or os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    )
    if not directory or file is None:
        return None
    stat = file.stat()
    identity = f"{file} {stat.st_size} {stat.st_mtime_ns} {runtime.name} {sys.version} {os.uname().machine}"
    return Path(directory) / f"abi-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"


def _loaded_file(name: str) -> Path | None:
    """The file behind a loaded library's name, as the kernel maps it."""
    wanted = os.path.basename(os.path.realpath(name)) if "/" in name else name.partition(".so")[0] + ".so"
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                path = line.split(maxsplit=5)[-1].strip()
                if path.startswith("/") and os.path.basename(path).startswith(wanted):
                    return Path(path)
    except OSError:
        pass
    return None


def _remember(record: Path | None, library: _edgetpu.Library, runtime: _tflite.Runtime) -> None:
    if record is None:
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=record.parent, delete=False) as file:
            json.dump({"library": library.version, "runtime": runtime.name}, file)
        os.replace(file.name, record)
    except OSError:
        pass  # a read-only directory only costs the trial at the next start


def main() -> None:
    """The child: one JSON object on stdin, one on stdout."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash here is an answer, not a bug to dump
    # A worker that is killed in the middle of a trial must not leave the stick held by its child.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    request = json.load(sys.stdin)
    if os.getppid() != request["parent"]:
        os._exit(1)  # died between fork and prctl
    answer: dict[str, Any] = {}
    try:
        runtime = _tflite.find_runtime(request["family"])
        library = _edgetpu.Library(request["library"])
        device = _edgetpu.Accelerator(request["kind"], request["path"], 0, 0)
        delegate = library.create(device, request["performance"])
        interpreter = _tflite.open_interpreter(
            runtime, Path(request["artifact"]), experimental_delegates=[delegate], num_threads=1
        )
        graph = Graph(interpreter, {}, DeviceError)
        answer["operators"] = len(interpreter._get_ops_details())
        del graph, interpreter
        del delegate  # gives the stick back before the parent opens it
    except InvalidModel as error:
        answer["model_error"] = str(error)
    except Exception as error:
        answer["error"] = str(error)
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
