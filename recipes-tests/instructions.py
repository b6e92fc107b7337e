#!/usr/bin/env python3
"""Instructions per request on aarch64, counted by QEMU: what a board's cost can be foreseen from.

    recipes-tests/instructions.py IMAGE.wic MODEL.tflite PICTURE.jpg

The image boots on one emulated processor whose clock moves by a nanosecond for every instruction (`-icount shift=0`), so
what its kernel says of a process's time is a number of instructions, and does not depend on this computer. MODEL is a
quantised classifier that takes raw RGB. Some minutes on a quiet computer. What is measured: daemon/benchmarks/serving/guest.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "recipes-tests"))

from rig import machine, paths  # noqa: E402  the path above has to be set first

MEASURE = TOP / "daemon" / "benchmarks" / "serving" / "guest.py"
#: Icount wants one thread for all emulated processors.
BOARD = machine.Board(cpus=1, acceleration="tcg,thread=single", extra=("-icount", "shift=0,sleep=off"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeai-icount-") as directory:
        guest = machine.boot(
            args.image.resolve(), paths.work_dir(), Path(directory) / "disk.qcow2", BOARD, timeout=1800
        )
        try:
            guest.wait_up()
            assert guest.link is not None
            for file, name in ((MEASURE, "guest.py"), (args.model, "m.tflite"), (args.picture, "p.jpg")):
                guest.link.run(f"cat > /tmp/{name}", stdin=file.read_bytes()).check()
            result = guest.link.run("python3 /tmp/guest.py /tmp/m.tflite /tmp/p.jpg", timeout=3600)
            print(result.out, end="")
            print(result.err, end="", file=sys.stderr)
            return result.code
        finally:
            guest.kill()
            guest.remove()


if __name__ == "__main__":
    sys.exit(main())
