"""From a serial port and a board in any state to a session: find it, send it the agent, raise the rate.

A board may be starting, at its REPL or raw REPL, in a program of its own, running an agent at some rate, or in noise.
Nothing here waits without a limit.
"""

from __future__ import annotations

import base64
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...errors import DeviceError, InvalidConfig
from .frames import Decoder, Frame, Type, encode
from .link import Link
from .messages import parse_about
from .port import LineLost, Port

#: Rates at which a board may be: MaixPy's own, the vendor IDE's, and what we set.
RATES: Final = (115200, 1500000, 921600, 460800, 2000000)
#: Where the agent's source may lie: as configured, installed, or in a development checkout.
AGENT_NAME: Final = "agent.py"
_RAW: Final = b"raw REPL; CTRL-B to exit\r\n>"
#: Raw REPL input must stay under the 2048 bytes of the board's buffer.
_PIECE: Final = 960

_LOADER: Final = """import ubinascii,uzlib,gc
gc.collect()
P={}
def W(o,s,c):
 d=ubinascii.a2b_base64(s)
 if len(d)and ubinascii.crc32(d)&0xffffffff==c:
  P[o]=d
  print('ok',o)
print('ready',len(P))
"""


def agent_source(path: str = "") -> bytes:
    """The agent for MaixPy. Raises InvalidConfig when it is nowhere."""
    here = Path(__file__).resolve()
    places = [Path(p) for p in (path, os.environ.get("EDGEAI_K210_AGENT", "")) if p]
    places += [
        Path("/usr/share/edgeai/maixpy") / AGENT_NAME,
        *(parent / "boards" / "maixpy" / AGENT_NAME for parent in here.parents[4:5]),
    ]
    for place in places:
        if place.is_file():
            return place.read_bytes()
    raise InvalidConfig(
        f"the K210 agent was not found at {', '.join(map(str, places))}; install edgeaid's board files or set "
        "EDGEAI_K210_AGENT to boards/maixpy/agent.py"
    )


def connect(
    port: Port,
    *,
    baud: int = 1500000,
    rx: int = 8192,
    reset: str = "",
    first: Sequence[int] = (),
    agent: bytes = b"",
    timeout: float = 20.0,
) -> Link:
    """A session with the board, at `baud` or the highest lower rate that works, with an empty set of models.

    `first` = rates to try first (a session that was lost); `reset` = kind of DTR/RTS wiring (k210_port.RESETS) for a
    board that stays silent. Raises DeviceError after `timeout` seconds, saying what was received.
    """
    end = time.monotonic() + timeout
    source = agent or agent_source()
    received = b""
    pulsed = False
    rates = list(dict.fromkeys((*first, *RATES)))
    likely = list(dict.fromkeys((*first, 115200, 1500000)))
    # Most boards are found by the first three steps: an agent at a likely rate, or the REPL at its own rate.
    steps = [(_find_agent, r) for r in likely] + [(_find_repl, 115200)]
    # Between the others the REPL again and again: a board that starts says nothing at first.
    for other in [(_find_agent, r) for r in rates if r not in likely] + [(_find_repl, r) for r in rates if r != 115200]:
        steps += [other, (_find_repl, 115200)]
    while True:
        for step, rate in steps:
            if time.monotonic() > end:
                raise DeviceError(_silence(port, received))
            link, said = step(port, rate, source, end)
            received = said or received
            if link:
                return raise_rate(link, baud, rx)
        if reset and not pulsed:
            pulsed = True
            port.reset_board(reset)


def _find_agent(port: Port, rate: int, source: bytes, end: float) -> tuple[Link | None, bytes]:
    """A session with an agent that runs at `rate` already; and what was received instead."""
    port.set_baud(rate)
    port.clear()
    link = Link(port)
    port.write(_probe(link))
    begin = time.monotonic()
    decoder = Decoder()
    received = b""
    while time.monotonic() - begin < 0.25:
        data = port.read(0.05)
        received += data
        for frame in decoder.feed(data) if data else ():
            if frame.type in (Type.HELLO, Type.PING):
                return (link if _hello(link) else None), b""
    return None, received[-200:]


def _find_repl(port: Port, rate: int, source: bytes, end: float) -> tuple[Link | None, bytes]:
    """A session with an agent sent through the REPL at `rate`; and what was received instead."""
    repl = _Repl(port, rate, end)
    if repl.enter() and repl.upload(source):
        link = Link(port)
        if _wait_hello(link, repl.rest):
            return link, b""
    return None, repl.heard[-200:]


def _probe(link: Link) -> bytes:
    """A PING that does no harm when a REPL receives it: no Ctrl-C, Ctrl-D or Ctrl-E in it."""
    while True:
        data = encode(Frame(Type.PING, 0, link.line.next_seq(), 0))
        if not set(data) & {3, 4, 5}:
            return data


def _hello(link: Link, timeout: float = 3.0) -> bool:
    try:
        link.hello(timeout=timeout)
    except LineLost:
        return False
    return True


def _wait_hello(link: Link, data: bytes) -> bool:
    """The agent sends HELLO when it starts; then begin the session. `data` = what has been read already."""
    begin = time.monotonic()
    while time.monotonic() - begin < 3.0:
        for frame in link.line.decoder.feed(data) if data else ():
            if frame.type == Type.HELLO:
                parse_about(frame)
                return _hello(link)
        if b"Traceback" in data:
            return False
        data = link.port.read(0.1)
    return _hello(link, 1.0)


def raise_rate(link: Link, baud: int, rx: int) -> Link:
    """Try `baud`, then lower rates; the link stays where it is when none works."""
    for rate in sorted({baud, *(r for r in RATES if r < baud)}, reverse=True):
        if rate <= link.port.baud and link.about and link.about.rx >= rx:
            break
        if link.set_baud(rate, rx):
            break
    link.about = link.hello()
    return link


def _silence(port: Port, received: bytes) -> str:
    if not received.strip(b"\0\r\n "):
        return (
            f"{port.path}: nothing answers; is it a K210 board with MaixPy, powered, on this port? (tried 0x03 and "
            f"HELLO at {', '.join(map(str, RATES))} baud)"
        )
    if _is_text(received):
        return f"{port.path}: the board sends text, but REPL and agent did not start in time: {received[-80:]!r}"
    return f"{port.path}: only noise is received at every rate ({received[-24:]!r}); check cable, ground and port"


def _is_text(data: bytes) -> bool:
    """Whether it is text, not noise."""
    return len(data) >= 8 and sum(32 <= b < 127 or b in b"\r\n" for b in data) > 0.9 * len(data)


class _Repl:
    """MicroPython's raw REPL at one rate."""

    def __init__(self, port: Port, rate: int, end: float) -> None:
        self.port = port
        self.end = end
        self.heard = b""
        #: What came behind the last answer: perhaps the agent's HELLO already.
        self.rest = b""
        port.set_baud(rate)

    def until(self, *marks: bytes, timeout: float) -> bytes | None:
        """Bytes up to and with the first of `marks`, or None."""
        got = b""
        end = min(self.end, time.monotonic() + timeout)
        while time.monotonic() < end:
            data = self.port.read(min(0.05, max(0.0, end - time.monotonic())))
            got += data
            if data and any(mark in got for mark in marks):
                self.heard += got[-200:]
                return got
            if len(got) > 65536:
                got = got[-4096:]
        self.heard += got[-200:]
        return None

    def enter(self) -> bool:
        """Into the raw REPL from wherever the board is. One that sends plain text is starting and is waited for."""
        tries = 0
        while tries < (12 if _is_text(self.heard) else 2) and time.monotonic() < self.end:
            tries += 1
            self.port.clear()
            self.port.write(b"\r\x03\x03")
            time.sleep(0.05)
            self.port.write(b"\x01")
            if self.until(_RAW, timeout=0.4 if self.heard else 0.25):
                return True
            if not self.heard:
                return False
        return False

    def run(self, code: str, timeout: float = 3.0) -> tuple[str, str] | None:
        """Execute; (what it printed, its traceback), or None when the answer is not understood."""
        self.port.write(code.encode() + b"\x04")
        got = self.until(b"\x04>", timeout=timeout)
        if got is None or b"OK" not in got:
            return None
        out, _, rest = got.partition(b"OK")[2].partition(b"\x04")
        return out.decode("utf-8", "replace"), rest.partition(b"\x04")[0].decode("utf-8", "replace")

    def upload(self, source: bytes) -> bool:
        """Send the agent in checked pieces and start it."""
        packed = zlib.compress(source, 9)
        answer = self.run(_LOADER)
        if answer is None or "ready" not in answer[0]:
            return False
        at, size, failures = 0, _PIECE, 0
        while at < len(packed):
            piece = packed[at : at + size]
            call = f"W({at},'{base64.b64encode(piece).decode()}',{zlib.crc32(piece)})"
            answer = self.run(call, timeout=0.5 + 20 * len(call) / self.port.baud)
            if answer and f"ok {at}" in answer[0]:
                at += len(piece)
                size = min(_PIECE, size + size // 8)
                continue
            failures += 1
            size = max(48, size // 2)
            if failures > 40 or time.monotonic() > self.end or not self.enter():
                return False
        check = f"print('sum',ubinascii.crc32(S)&0xffffffff=={zlib.crc32(packed)})"
        answer = self.run(f"S=b''.join([P[k] for k in sorted(P)])\nP=None\n{check}")
        if answer is None or "sum True" not in answer[0]:
            return False
        self.port.write(b"S=uzlib.decompress(S)\ngc.collect()\nexec(S)\x04")
        got = self.until(b"OK", timeout=1.0)
        self.rest = (got or b"").partition(b"OK")[2]
        return got is not None
