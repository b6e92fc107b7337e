#!/usr/bin/env python3
"""Builds the stand-ins, libraries that answer like an accelerator's runtime. Test-only: never installed on a device.

    build.py [--target native|aarch64] OUT [NAME...]

OUT/libedgetpu_standin.so       delegate and C API of libedgetpu, for runtimes of today
OUT/libedgetpu_standin_old.so   the same with the struct sizes of TensorFlow <= 2.6, which crashes those runtimes
OUT/libmvnc_v1_standin.so       NCSDK 1 API
OUT/libmvnc_v2_standin.so       NCSDK 2 API
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMON = ["common/control.c"]
EDGETPU = ["edgetpu/delegate.c", "edgetpu/device.c", "edgetpu/package.c", "edgetpu/twin.c", *COMMON]
LIBRARIES: dict[str, tuple[list[str], list[str]]] = {
    "edgetpu_standin": (EDGETPU, []),
    "edgetpu_standin_old": (EDGETPU, ["-DSTANDIN_OLD_ABI"]),
    "mvnc_v1_standin": (["mvnc/v1.c", "mvnc/stick.c", *COMMON], []),
    "mvnc_v2_standin": (["mvnc/v2.c", "mvnc/stick.c", *COMMON], []),
}
COMPILERS = {"native": os.environ.get("CC", "gcc"), "aarch64": "aarch64-linux-gnu-gcc"}


def build(name: str, out: Path, target: str = "native") -> Path:
    """Compile one library into `out`; returns its path. Raises CalledProcessError with the compiler's text shown."""
    sources, flags = LIBRARIES[name]
    library = out / f"lib{name}.so"
    out.mkdir(parents=True, exist_ok=True)
    command = [
        *COMPILERS[target].split(),
        *("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"),
        *("-fPIC", "-shared", "-fvisibility=hidden", "-pthread"),
        *flags,
        *(str(HERE / source) for source in sources),
        *("-ldl", "-lm", "-o", str(library)),
    ]
    subprocess.run(command, check=True)
    return library


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=COMPILERS, default="native")
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LIBRARIES)}; default all")
    arguments = parser.parse_args()
    for name in arguments.names or LIBRARIES:
        print(build(name, arguments.out, arguments.target))


if __name__ == "__main__":
    main()
