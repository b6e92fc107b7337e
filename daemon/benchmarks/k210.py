# ruff: noqa: E402  the stand-in's directory must be on the path before it is imported
"""Speed of the K210 protocol: the codec alone, and a session over the stand-in's line.

    python benchmarks/k210.py [--runtime cpython|node] [--unpaced] [--seconds 2]

Paced, the stand-in passes bytes at the board's rate (10 bits a byte), so the figures say what the protocol costs on top
of the line; unpaced, they are the host's own limit together with the agent on this machine. Not a K210: its own
processor is slower than this machine's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

DAEMON = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(DAEMON / "src"), str(DAEMON / "tests" / "standins" / "k210")]

import facts
from board import Board

from edgeaid.backends.k210.boot import connect
from edgeaid.backends.k210.frames import Decoder, Frame, Type, encode
from edgeaid.backends.k210.port import Port


def rate(what: str, work: Callable[[], int], seconds: float) -> None:
    """Run for a while; print bytes/s."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        done += work()
    print(f"{what:<46}{done / (time.perf_counter() - begin) / 1e6:8.2f} MB/s")


def codec(seconds: float) -> None:
    """Encoder and decoder, friendly and unfriendly payloads."""
    for name, payload in (("random", os.urandom(1024)), ("all zero", bytes(1024)), ("no zero", b"\xaa" * 1024)):
        frame = Frame(Type.DATA, 0x60, 1, 0, payload)
        rate(f"encode, {name}", lambda frame=frame: len(encode(frame)), seconds / 6)
        stream = encode(frame) * 200
        rate(f"decode, {name}", lambda stream=stream: len(Decoder().feed(stream)) * 1043, seconds / 6)
    noise = os.urandom(200_000)
    decoder = Decoder()
    rate("decode, noise only", lambda: len(noise) + len(decoder.feed(noise)) * 0, seconds / 6)


def line(runtime: str, unpaced: bool, rounds: int) -> None:
    """Times of whole steps at several rates."""
    with Board(runtime, *(["--unpaced"] if unpaced else [])) as board:
        port = Port(board.port)
        begin = time.perf_counter()
        link = connect(port, baud=115200, rx=2048)
        print(f"find the board, send the agent{time.perf_counter() - begin:25.2f} s")
        small, big = facts.small_kmodel(32, 32, 3), facts.small_kmodel(96, 96, 3)
        for name, data in (("s", small), ("b", big)):
            link.put_file(f"/flash/{name}.kmodel", data)
        for slot, (name, side) in enumerate((("s", 32), ("b", 96))):
            link.request(Type.LOAD, b"\1/flash/" + name.encode() + b".kmodel", index=slot, timeout=9, slow=True)
            link.request(Type.SETOUT, struct.pack("<BHHH", 0, side, side, 3), index=slot)
        print(f"{'rate':>8} {'picture':>10} {'in: s':>8} {'line s':>8} {'run+out: s':>11} {'line s':>8}")
        for baud, rx in ((115200, 2048), (115200, 8192), (460800, 8192), (921600, 8192), (1500000, 8192)):
            if (baud, rx) != (115200, 2048) and not link.set_baud(baud, rx):
                continue
            for slot, side in ((0, 32), (1, 96)):
                n = side * side * 3
                times = []
                for _ in range(rounds if baud > 200000 else 1):
                    picture = os.urandom(n)
                    head = struct.pack("<IIBHHB", n, zlib.crc32(picture), 0, side, side, 3)
                    begin = time.perf_counter()
                    link.transfer(Type.INPUT, head, picture, index=slot)
                    middle = time.perf_counter()
                    link.run(slot, 1)
                    times.append((middle - begin, time.perf_counter() - middle))
                into, out = (statistics.median(t[i] for t in times) for i in (0, 1))
                per = 10 / baud
                print(f"{baud:>8} {side:>4}x{side}x3 {into:>9.3f} {n * per:>8.3f} {out:>11.3f} {4 * n * per:>8.3f}")
        print(
            f"resent {link.line.counters.resent} of {link.line.counters.sent} frames, damaged {link.line.decoder.bad}"
        )
        link.bye()
        port.close()


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=["cpython", "node"], default="cpython")
    parser.add_argument("--unpaced", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0, help="for the codec part")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    codec(options.seconds)
    line(options.runtime, options.unpaced, options.rounds)


if __name__ == "__main__":
    main()
