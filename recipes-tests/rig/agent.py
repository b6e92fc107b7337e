"""Runs inside the emulated machine: commands and socket connections over one byte stream to the host.

The emulator puts this file below /run before the image's own init starts, so that the image itself is unchanged. It needs
nothing but Python's standard library (3.11 or newer).

Frames, both directions: magic u32, channel u32, kind u8, length u32 (big-endian), payload.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import IO, Any

HEADER = struct.Struct(">IIBI")
MAGIC = 0xED6EA1FF
# host -> guest                       guest -> host
RESET, EXEC, CONNECT = 0, 1, 2  #     RESET: answer
DATA, ERROR_DATA, END = 3, 4, 5  #    bytes; bytes of stderr; END = no more (either side)
EXIT, FAIL, DONE = 6, 7, 8  #         return code as text; text; connected


class Stream:
    """The one stream to the host; frames are written whole."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.lock = threading.Lock()

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            data = os.read(self.fd, min(size, 1 << 16))
            if not data:  # nobody at the other end
                time.sleep(0.2)
                continue
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def write(self, channel: int, kind: int, payload: bytes = b"") -> None:
        data = memoryview(HEADER.pack(MAGIC, channel, kind, len(payload)) + payload)
        with self.lock:
            while data:
                data = data[os.write(self.fd, data[: 1 << 15]) :]

    def frame(self) -> tuple[int, int, bytes]:
        head = self.read(HEADER.size)
        while head[:4] != MAGIC.to_bytes(4, "big"):
            head = head[1:] + self.read(1)
        _, channel, kind, length = HEADER.unpack(head)
        return channel, kind, self.read(length)


def as_user(name: str | None) -> dict[str, Any]:
    """Arguments of Popen that run a program as a user, with that user's own groups."""
    if not name:
        return {}
    entry = pwd.getpwnam(name)
    groups = os.getgrouplist(name, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


class Command:
    """A running program."""

    def __init__(self, stream: Stream, channel: int, request: dict[str, Any]) -> None:
        command = request["command"]
        self.process = subprocess.Popen(
            command if isinstance(command, list) else ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            env={**os.environ, "LANG": "C.UTF-8", **request.get("env", {})}, **as_user(request.get("user")),
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin = self.process.stdin
        pumps = [
            threading.Thread(target=self.pump, args=(stream, channel, kind, pipe), daemon=True)
            for kind, pipe in ((DATA, self.process.stdout), (ERROR_DATA, self.process.stderr))
        ]
        for pump in pumps:
            pump.start()
        threading.Thread(target=self.wait, args=(stream, channel, pumps), daemon=True).start()

    def pump(self, stream: Stream, channel: int, kind: int, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), 1 << 16):
            stream.write(channel, kind, data)

    def wait(self, stream: Stream, channel: int, pumps: list[threading.Thread]) -> None:
        code = self.process.wait()
        for pump in pumps:
            pump.join(timeout=5)  # a child left in the background may hold the pipes
        stream.write(channel, EXIT, str(code).encode())
        channels.pop(channel, None)

    def data(self, payload: bytes) -> None:
        try:
            self.stdin.write(payload)
        except OSError:
            pass

    def end(self) -> None:
        try:
            self.stdin.close()
        except OSError:
            pass

    def close(self) -> None:
        self.process.kill()


class Connection:
    """A connection to a Unix socket of the guest."""

    def __init__(self, stream: Stream, channel: int, request: dict[str, Any]) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(request["path"])
        stream.write(channel, DONE)
        threading.Thread(target=self.pump, args=(stream, channel), daemon=True).start()

    def pump(self, stream: Stream, channel: int) -> None:
        try:
            while data := self.sock.recv(1 << 16):
                stream.write(channel, DATA, data)
        except OSError:
            pass
        stream.write(channel, END)

    def data(self, payload: bytes) -> None:
        try:
            self.sock.sendall(payload)
        except OSError:
            pass

    def end(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


channels: dict[int, Command | Connection] = {}


def open_stream(where: str) -> int:
    """The virtio port, or host:port of the emulator where the board has no virtio."""
    if where.startswith("/"):
        while not os.path.exists(where):
            time.sleep(0.1)
        return os.open(where, os.O_RDWR)
    host, port = where.rsplit(":", 1)
    busybox = os.path.join(os.path.dirname(os.path.abspath(__file__)), "busybox")
    for attempt in range(100_000):
        try:
            return socket.create_connection((host, int(port)), timeout=5).detach()
        except OSError:
            if attempt > 10:  # nobody configured the network: do it by hand
                for name in set(os.listdir("/sys/class/net")) - {"lo"}:
                    subprocess.run([busybox, "ip", "link", "set", name, "up"], check=False)
                    subprocess.run(
                        [busybox, "ip", "addr", "add", "10.0.2.15/24", "dev", name],
                        check=False,
                        stderr=subprocess.DEVNULL,
                    )
            time.sleep(1)
    raise SystemExit(f"{where} never answers")


def main() -> None:
    fd = open_stream(sys.argv[1])
    os.set_blocking(fd, True)
    stream = Stream(fd)
    while True:
        channel, kind, payload = stream.frame()
        try:
            if kind == RESET:
                for old in list(channels.values()):
                    old.close()
                channels.clear()
                stream.write(channel, RESET, payload)
            elif kind in (EXEC, CONNECT):
                start: type[Command] | type[Connection] = Command if kind == EXEC else Connection
                channels[channel] = start(stream, channel, json.loads(payload))
            elif kind == DATA and channel in channels:
                channels[channel].data(payload)
            elif kind == END and channel in channels:
                channels[channel].end()
            elif kind == FAIL and channel in channels:  # the host gave it up
                channels.pop(channel).close()
        except Exception as error:  # the agent lives on, whatever a request asked for
            stream.write(channel, FAIL, f"{type(error).__name__}: {error}".encode())


if __name__ == "__main__":
    main()
