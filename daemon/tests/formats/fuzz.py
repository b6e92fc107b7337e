"""Fuzz one reader, guided by the lines it reaches (libFuzzer by way of atheris).

usage: python -m formats.fuzz KIND CASES CORPUS [libFuzzer options], in daemon/tests. Anything but an EdgeaiError ends
the run with a traceback and the bytes that caused it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgeaid.formats"]):
    from .targets import try_reading

from edgeaid.errors import EdgeaiError
from edgeaid.formats.detect import detect
from edgeaid.toolkit.inspect.files import inspect_bytes
from edgeaid.toolkit.inspect.html import page
from edgeaid.toolkit.inspect.report import as_json, compare

#: What the reader lets through is looked at as `edgeai model inspect` does, every so often: drawing is slow.
_INSPECTED_EVERY = 20


def main(kind: str, cases: int, options: list[str]) -> None:
    """Run libFuzzer; it ends the process."""
    done = readable = drawn = 0

    def one(data: bytes) -> None:
        nonlocal done, readable, drawn
        done += 1
        detect(data)
        if try_reading(kind, data):
            readable += 1
            drawn += readable % _INSPECTED_EVERY == 0 and inspect(data)
        if done == cases:  # libFuzzer leaves without running exit handlers
            print(f"{done} cases, {readable} readable, {drawn} drawn", flush=True)

    atheris.Setup([sys.argv[0], f"-runs={cases}", *options], one)
    atheris.Fuzz()


def inspect(data: bytes) -> bool:
    """What `edgeai model inspect` does; whether it gave a report."""
    try:
        report = inspect_bytes(data, Path("damaged.bin"))
    except EdgeaiError:
        return False
    compare([report, report])
    as_json([report])
    page([report])
    return True


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
