"""A K210 board's processor for quick tests: CPython with a small REPL of our own."""

import gc
import io
import os
import sys
import traceback

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(os.path.dirname(here), "modules")]
sys.path.remove(here) if sys.path.count(here) > 1 else None

import boot  # noqa: E402 the directories are known only now
import files  # noqa: E402
import hw  # noqa: E402
import image  # noqa: E402
import uctypes  # noqa: E402

sys.modules["uos"] = files
gc.mem_free = lambda: 400000


def where(thing):
    return uctypes.real_addressof(thing.head) if isinstance(thing, image.Image) else id(thing)


class Out(io.TextIOBase):
    def write(self, text):
        hw.write(text.replace("\n", "\r\n").encode())
        hw.pump()
        return len(text)


def run(source, names):
    """Execute; the traceback, or ""."""
    hw.running = True
    sys.stdout = Out()
    try:
        exec(compile(source, "<stdin>", "exec"), names)  # noqa: S102  a REPL is for that
        return ""
    except SystemExit:
        raise
    except BaseException:
        return traceback.format_exc()
    finally:
        hw.running = False
        sys.stdout = sys.__stdout__


def fresh():
    return {"__name__": "__main__", "open": files.open, "id": where}


def repl(names):
    raw = False
    line = bytearray()
    hw.write(b"\r\nMicroPython v0.6.2 on 2021; Sipeed_M1 with kendryte-k210\r\n>>> ")
    while True:
        hw.pump(1.0)
        while hw.any():
            c = hw.read(1)[0]
            if c == 1:
                raw, line = True, bytearray()
                hw.write(b"raw REPL; CTRL-B to exit\r\n>")
            elif c == 2:
                raw, line = False, bytearray()
                hw.write(b"\r\n>>> ")
            elif c == 3:
                line = bytearray()
                hw.write(b"\r\n>" if raw else b"\r\n>>> ")
            elif c == 4:
                if not line:
                    hw.write(b"[MaixPy]: soft reboot\r\n")
                    raise SystemExit(10)
                if raw:
                    hw.write(b"OK")
                    text = run(line.decode("utf-8", "replace"), names)
                    hw.write(b"\x04" + text.replace("\n", "\r\n").encode() + b"\x04>")
                    line = bytearray()
            elif c == 13 and not raw:
                hw.write(b"\r\n" + run(line.decode("utf-8", "replace"), names).encode() + b">>> ")
                line = bytearray()
            else:
                line.append(c)
                if not raw:
                    hw.write(bytes([c]))


boot.text()
names = fresh()
program = boot.main()
if program:
    hw.write(run(program, fresh()).encode())
repl(names)
