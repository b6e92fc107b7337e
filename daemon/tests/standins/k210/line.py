"""The stand-in's line and everything behind the processor. See README.md; started by board.py."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import facts as kmodel

HERE = Path(__file__).resolve().parent
RATES = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name.startswith("B") and name[1:].isdigit() and name != "B0"
}


class Pipe:
    """Bytes on one direction of the line: paced, and hurt on the way."""

    def __init__(self) -> None:
        self.queue = bytearray()
        self.next = 0.0

    def ready(self, now: float, baud: int, paced: bool) -> bytes:
        """What has arrived by `now`; at most 256 bytes at once so that both directions stay even."""
        if not self.queue:
            self.next = max(self.next, now - 0.002)
            return b""
        if not paced:
            part = bytes(self.queue[:4096])
        else:
            part = bytes(self.queue[: max(0, min(4096, int((now - self.next) * baud / 10)))])
            self.next += len(part) * 10 / baud
        del self.queue[: len(part)]
        return part


class Line:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.flash = Path(options.state) / "flash"
        self.flash.mkdir(parents=True, exist_ok=True)
        self.random = random.Random(options.seed)
        self.baud = 115200
        self.max_baud = 5242880
        self.ber = 0.0
        self.drop = 0.0
        self.garbage_until = 0.0
        self.paced = not options.unpaced
        self.forward_ms = 0.0
        self.camera_ms = 20.0
        self.camera = True
        self.hang = False
        self.mute = False
        self.dog = 0.0
        self.born = 0.0
        self.stats = {"to_board": 0, "to_host": 0, "flipped": 0, "garbled": 0, "boots": 0, "forwards": 0, "loads": 0}
        self.link = Path(options.state) / "port"
        self.master = self.slave = -1
        self.child: subprocess.Popen[bytes] | None = None
        self.uart: socket.socket | None = None
        self.rpc: socket.socket | None = None
        self.pending: tuple[float, bytes] | None = None
        self.twin: Any = None

    # hardware

    def plug(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(self.slave))

    def unplug(self) -> None:
        self.link.unlink(missing_ok=True)
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1

    def power(self) -> None:
        """Cold start of the processor."""
        if self.child:
            self.child.kill()
            self.child.wait()
        for old in (self.uart, self.rpc):
            if old:
                old.close()
        self.uart, uart = socket.socketpair()
        self.rpc, rpc = socket.socketpair()
        self.uart.setblocking(False)
        self.pending = None
        self.dog = 0.0
        self.baud = 115200
        self.to_board, self.to_host = Pipe(), Pipe()
        if self.options.runtime == "node":
            uart.setblocking(False)
            rpc.setblocking(False)
            command = ["node", str(HERE / "board.mjs"), self.options.micropython, str(uart.fileno()), str(rpc.fileno())]
            command += [str(HERE / "modules"), str(HERE / "micropython")]
        else:
            command = [sys.executable, str(HERE / "cpython" / "main.py")]
        environment = {**os.environ, "STANDIN_UART": str(uart.fileno()), "STANDIN_CALL": str(rpc.fileno())}
        self.child = subprocess.Popen(
            command, pass_fds=(uart.fileno(), rpc.fileno()), env=environment, stdin=subprocess.DEVNULL
        )
        uart.close()
        rpc.close()
        self.born = time.monotonic()
        self.stats["boots"] += 1

    def hurt(self, data: bytes) -> bytes:
        if self.drop:
            data = bytes(b for b in data if self.random.random() >= self.drop)
        if not self.ber or not data:
            return data
        out = bytearray(data)
        bits = 8 * len(out)
        at = int(self.random.expovariate(self.ber))
        while at < bits:
            out[at >> 3] ^= 1 << (at & 7)
            self.stats["flipped"] += 1
            at += 1 + int(self.random.expovariate(self.ber))
        return bytes(out)

    def host_rate(self) -> int:
        return RATES.get(termios.tcgetattr(self.master)[5], 0)

    def carry(self, data: bytes, to_board: bool) -> None:
        """Put bytes on the line as they arrive at the other end."""
        if self.host_rate() != self.baud or self.baud > self.max_baud:
            self.stats["garbled"] += len(data)
            data = self.random.randbytes(len(data))
        if self.garbage_until > time.monotonic():
            data = self.random.randbytes(len(data))
        (self.to_board if to_board else self.to_host).queue += self.hurt(data)

    # what the processor asks

    def call(self, request: bytes) -> None:
        op, rest = request[:1], request[1:]
        reply, delay = getattr(self, "on_" + op.decode())(rest)
        self.pending = (time.monotonic() + delay, reply)

    def path(self, name: bytes) -> Path:
        text = name.decode().removeprefix("/flash").strip("/")
        return self.flash / text.replace("/", "_") if text else self.flash

    def on_B(self, rest: bytes) -> tuple[bytes, float]:
        self.baud = int(rest)
        return b"", 0.0

    def on_D(self, rest: bytes) -> tuple[bytes, float]:
        self.dog = time.monotonic() + int(rest) / 1000 if int(rest) else 0.0
        return b"", 0.0

    def on_X(self, rest: bytes) -> tuple[bytes, float]:
        self.dog = 0.001
        return b"", 3600.0

    def on_C(self, rest: bytes) -> tuple[bytes, float]:
        return (b"1" if self.camera else b"0"), self.camera_ms / 1000

    def on_R(self, name: bytes) -> tuple[bytes, float]:
        path = self.path(name)
        return (b"1" + path.read_bytes() if path.is_file() else b"0"), 0.0

    def on_W(self, rest: bytes) -> tuple[bytes, float]:
        self.path(rest.partition(b"\n")[0]).write_bytes(b"")
        return b"1", 0.0

    def on_A(self, rest: bytes) -> tuple[bytes, float]:
        name, _, data = rest.partition(b"\n")
        if sum(p.stat().st_size for p in self.flash.iterdir()) + len(data) > self.options.flash_size:
            return b"0", 0.0
        with self.path(name).open("ab") as file:
            file.write(data)
        return b"1", 0.0

    def on_N(self, name: bytes) -> tuple[bytes, float]:
        return "\n".join(sorted(p.name for p in self.flash.iterdir())).encode(), 0.0

    def on_U(self, name: bytes) -> tuple[bytes, float]:
        with contextlib.suppress(FileNotFoundError):
            self.path(name).unlink()
            return b"1", 0.0
        return b"0", 0.0

    def model(self, name: bytes) -> bytes:
        if name.isdigit():  # a flash address: the file of that name
            name = b"0x%x.bin" % int(name)
        path = self.path(name)
        return path.read_bytes() if path.is_file() else b""

    def on_L(self, name: bytes) -> tuple[bytes, float]:
        model = kmodel.read(self.model(name))
        if isinstance(model, int):
            text = {2005: "ERR_READ_FILE: read file failed", 2002: "ERR_KMODEL_VERSION: only support kmodel V3/V4 now"}
            return f"error {model}, {text[model]}".encode(), 0.0
        self.stats["loads"] += 1
        fields = [str(model.version), ",".join(map(str, model.input)), ",".join(map(str, model.outputs)), model.kind]
        return ";".join(fields).encode(), 0.0

    def on_F(self, rest: bytes) -> tuple[bytes, float]:
        if self.hang:
            return b"", 1e9
        self.stats["forwards"] += 1
        name, _, raw = rest.partition(b"\n")
        model = kmodel.read(self.model(name))
        assert isinstance(model, kmodel.Facts)
        outputs = self.run_twin(raw, model.input) if self.options.twin else kmodel.answer(raw, model.outputs)
        return b"".join(outputs), self.forward_ms / 1000

    def run_twin(self, raw: bytes, shape: tuple[int, int, int]) -> list[bytes]:
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        if self.twin is None:
            self.twin = Interpreter(model_path=self.options.twin)
            self.twin.allocate_tensors()
        detail = self.twin.get_input_details()[0]
        w, h, c = shape
        picture: Any = np.frombuffer(raw, np.uint8).reshape(1, c, h, w).transpose(0, 2, 3, 1)
        if detail["dtype"] == np.float32:
            picture = picture.astype(np.float32) / 255
        self.twin.set_tensor(detail["index"], picture)
        self.twin.invoke()
        results = []
        for out in self.twin.get_output_details():
            value = self.twin.get_tensor(out["index"])
            scale, zero = out["quantization"]
            value = (value.astype(np.float32) - zero) * scale if scale else value.astype(np.float32)
            results.append(value.tobytes())
        return results

    def on_J(self, data: bytes) -> tuple[bytes, float]:
        from PIL import Image

        try:
            picture = Image.open(io.BytesIO(data)).convert("RGB")
        except OSError:
            return b"", 0.0
        out = bytearray()
        flat = picture.tobytes()
        for r, g, b in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            out += ((r >> 3) << 11 | (g >> 2) << 5 | b >> 3).to_bytes(2, "little")
        return picture.width.to_bytes(2, "little") + picture.height.to_bytes(2, "little") + bytes(out), 0.0

    # commands of the test

    def command(self, text: str) -> dict[str, Any]:
        order = json.loads(text)
        what = order.pop("do")
        if what == "set":
            for name, value in order.items():
                if not hasattr(self, name):
                    return {"error": f"no {name}"}
                setattr(self, name, value)
        elif what == "garbage":
            self.garbage_until = time.monotonic() + order["seconds"]
        elif what == "reset":
            self.power()
        elif what == "unplug":
            self.unplug()
        elif what == "plug":
            self.plug()
            if order.get("reset", True):
                self.power()
        elif what == "say":
            assert self.uart
            self.carry(order["text"].encode(), to_board=False)
        elif what == "type":
            self.carry(order["text"].encode(), to_board=True)
        elif what != "stats":
            return {"error": f"no {what}"}
        child = self.child.pid if self.child else 0
        return {**self.stats, "baud": self.baud, "host": self.host_rate() if self.master >= 0 else 0, "child": child}

    def exchange(self) -> None:
        """Move what is due."""
        assert self.uart
        now = time.monotonic()
        if self.garbage_until > now and self.host_rate():
            for pipe in (self.to_board, self.to_host):
                if len(pipe.queue) < 200:
                    pipe.queue += self.random.randbytes(200)
        part = self.to_board.ready(now, self.baud, self.paced)
        if part and not self.mute:
            self.stats["to_board"] += len(part)
            with contextlib.suppress(OSError):
                self.uart.send(part)
        if self.master >= 0:
            part = self.to_host.ready(now, self.baud, self.paced)
            if part and not self.mute:
                try:
                    sent = os.write(self.master, part)
                except BlockingIOError:
                    sent = 0  # nobody reads: the host's buffer is full and the rest is lost, as on a real port
                self.stats["to_host"] += sent

    def answer_calls(self, called: bool) -> None:
        """Send an answer that is due, or take the program's next call."""
        assert self.rpc
        if self.pending and time.monotonic() >= self.pending[0]:
            with contextlib.suppress(OSError):
                self.rpc.sendall(len(self.pending[1]).to_bytes(4, "little") + self.pending[1])
            self.pending = None
        elif called:
            head = self.rpc.recv(4, socket.MSG_WAITALL)
            if len(head) == 4:
                n = int.from_bytes(head, "little")
                body = bytearray()
                while len(body) < n:
                    part = self.rpc.recv(n - len(body))
                    if not part:
                        break
                    body += part
                self.call(bytes(body))

    def step(self) -> bool:
        assert self.uart
        assert self.rpc
        assert self.child
        readers: list[Any] = [sys.stdin.fileno()]
        if len(self.to_host.queue) < 4096:  # as the board's transmitter makes its program wait
            readers.append(self.uart)
        if self.pending is None:
            readers.append(self.rpc)
        if self.master >= 0:
            readers.append(self.master)
        busy = self.to_board.queue or self.to_host.queue or self.garbage_until > time.monotonic()
        wait = 0.001 if busy else 0.02
        if self.pending:
            wait = min(wait, max(0.0, self.pending[0] - time.monotonic()))
        ready = select.select(readers, [], [], wait)[0]
        if sys.stdin.fileno() in ready:
            text = sys.stdin.readline()
            if not text:
                return False
            print(json.dumps(self.command(text)), flush=True)
            return True
        if self.master in ready:
            with contextlib.suppress(BlockingIOError):
                self.carry(os.read(self.master, 4096), to_board=True)
        if self.uart in ready:
            with contextlib.suppress(OSError):
                data = self.uart.recv(4096)
                if self.master >= 0:
                    self.carry(data, to_board=False)
        self.exchange()
        self.answer_calls(self.rpc in ready)
        if (self.dog and time.monotonic() > self.dog) or self.child.poll() is not None:
            self.power()
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=["node", "cpython"], default="cpython")
    parser.add_argument("--micropython", default="", help="micropython.mjs of the npm package")
    parser.add_argument("--state", required=True, help="directory for the port's link and the flash")
    parser.add_argument("--twin", default="", help="TFLite model that computes instead of the fixed function")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flash-size", type=int, default=0x300000)
    parser.add_argument(
        "--unpaced", action="store_true", help="bytes pass as fast as they can, not at the board's rate"
    )
    line = Line(parser.parse_args())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    line.plug()
    line.power()
    print(json.dumps({"port": str(line.link)}), flush=True)
    try:
        while line.step():
            pass
    finally:
        if line.child:
            line.child.kill()
            line.child.wait()
        line.unplug()


if __name__ == "__main__":
    main()
