"""Does as root the two things with a USB port that the daemon may not: `authorized` 0/1 and its power off and on.

Started per connection by edgeaid-usb.socket, which only the daemon's user can reach. Standard input is the connection:
one line `authorized 1-1.4` or `port-power 1-1.4` comes in, `ok` or the reason goes out. The port must hold a device of
`usb_ids.py`, or nothing; hubs, keyboards and disks are left alone. Once begun it is finished: a port does not stay
dark because the daemon died meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Final

from .. import usb_ids
from ..errors import DeviceError
from . import recovery_steps
from .ladder import Step

_REQUEST: Final = re.compile(rb"(authorized|port-power) (\d{1,3}-\d{1,3}(?:\.\d{1,3}){0,5})\n")


def answer(request: bytes, sysfs: Path, dark_s: float = recovery_steps.DARK_S) -> str:
    """Carry out one request; `ok`, or why not."""
    match = _REQUEST.fullmatch(request)
    if match is None:
        return "not understood; ask 'authorized PORT' or 'port-power PORT', with a port such as 1-1.4"
    step, port = Step(match[1].decode()), match[2].decode()
    device = sysfs / "bus/usb/devices" / port
    if device.exists():
        pair = tuple(int((device / name).read_text(), 16) for name in ("idVendor", "idProduct"))
        if pair not in usb_ids.USB:
            return "port {} holds {:04x}:{:04x}, which is not a device of edgeaid".format(port, *pair)
    asyncio.run(recovery_steps.pulse(recovery_steps.switch(step, port, sysfs), dark_s))
    return "ok"


def main() -> None:
    """One request on standard input, one answer on standard output."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the port is off for a second, then it ends
    request = sys.stdin.buffer.readline(64)
    try:
        text = answer(request, Path(os.environ.get("EDGEAI_SYSFS", "/sys")))
    except (DeviceError, OSError, ValueError) as error:
        text = " ".join(str(error).split())
    print(f"usb helper: {request!r}: {text}", file=sys.stderr)
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the client is gone; what it asked for is done
        os._exit(0)


if __name__ == "__main__":
    main()
