"""The host's end of the stream to agent.py: run commands, open sockets of the guest, forward them to host sockets."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .agent import CONNECT, DATA, DONE, END, ERROR_DATA, EXEC, EXIT, FAIL, HEADER, MAGIC, RESET

T = TypeVar("T")


class GuestError(Exception):
    """The guest does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command in the guest left."""

    code: int
    out: str
    err: str

    def check(self) -> str:
        """stdout; GuestError unless the command succeeded."""
        if self.code:
            raise GuestError(f"exit {self.code}\nstdout: {self.out}\nstderr: {self.err}")
        return self.out


def wait_for(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Poll until true; returns the value. An emulated machine has no fixed pace. AssertionError when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


class Link:
    """A connection to the agent over a Unix socket of the emulator."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self._lock = threading.Lock()
        self._channels: dict[int, queue.Queue[tuple[int, bytes]]] = {0: queue.Queue()}
        self._next = 1
        self._listeners: list[socket.socket] = []
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """Leave; listening sockets of forwards go too."""
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _send(self, channel: int, kind: int, payload: bytes = b"") -> None:
        with self._lock:
            self.sock.sendall(HEADER.pack(MAGIC, channel, kind, len(payload)) + payload)

    def _read(self) -> None:
        buffer = b""
        magic = MAGIC.to_bytes(4, "big")
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                for one in list(self._channels.values()):
                    one.put((FAIL, b"the emulator is gone"))
                return
            buffer += data
            while len(buffer) >= HEADER.size:
                if buffer[:4] != magic:
                    start = buffer.find(magic)
                    buffer = buffer[start:] if start > 0 else buffer[-3:]
                    if start <= 0:
                        break
                    continue
                _, channel, kind, length = HEADER.unpack_from(buffer)
                if len(buffer) < HEADER.size + length:
                    break
                payload, buffer = buffer[HEADER.size : HEADER.size + length], buffer[HEADER.size + length :]
                if channel in self._channels:
                    self._channels[channel].put((kind, payload))

    def _open(self) -> tuple[int, queue.Queue[tuple[int, bytes]]]:
        with self._lock:
            channel, self._next = self._next, self._next + 1
        self._channels[channel] = queue.Queue()
        return channel, self._channels[channel]

    def wait(self, timeout: float) -> None:
        """Until the agent answers."""
        deadline = time.monotonic() + timeout
        token = os.urandom(8)
        while time.monotonic() < deadline:
            self._send(0, RESET, token)
            with contextlib.suppress(queue.Empty):
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    kind, payload = self._channels[0].get(timeout=max(0.01, end - time.monotonic()))
                    if kind == RESET and payload == token:
                        return
                    if kind == FAIL:
                        raise GuestError(payload.decode())
        raise GuestError(f"the guest's agent did not answer for {timeout:.0f} s")

    def run(
        self,
        command: str | list[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        timeout: float = 300,
    ) -> Result:
        """Run a shell line (or an argument list) as root or as a user of the guest."""
        channel, answers = self._open()
        try:
            self._send(channel, EXEC, json.dumps({"command": command, "user": user, "env": env or {}}).encode())
            for start in range(0, len(stdin), 1 << 16):
                self._send(channel, DATA, stdin[start : start + (1 << 16)])
            self._send(channel, END)
            out: list[bytes] = []
            err: list[bytes] = []
            deadline = time.monotonic() + timeout
            while True:
                try:
                    kind, payload = answers.get(timeout=max(0.01, deadline - time.monotonic()))
                except queue.Empty:
                    self._send(channel, FAIL)
                    text = b"".join(out).decode(errors="replace") + b"".join(err).decode(errors="replace")
                    raise GuestError(f"no end after {timeout:.0f} s: {command}\n{text}") from None
                if kind == DATA:
                    out.append(payload)
                elif kind == ERROR_DATA:
                    err.append(payload)
                elif kind == EXIT:
                    return Result(
                        int(payload), b"".join(out).decode(errors="replace"), b"".join(err).decode(errors="replace")
                    )
                elif kind == FAIL:
                    raise GuestError(payload.decode())
        finally:
            self._channels.pop(channel, None)

    def python(self, source: str, *arguments: str, user: str | None = None, timeout: float = 300) -> Result:
        """Run a Python program in the guest."""
        return self.run(["/usr/bin/python3", "-", *arguments], user=user, stdin=source.encode(), timeout=timeout)

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file of the guest."""
        self.run(
            f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode:o} {path}", stdin=content, timeout=300
        ).check()

    def connect(self, path: str, timeout: float = 120) -> socket.socket:
        """A stream socket of the guest, as a socket of the host."""
        channel, answers = self._open()
        self._send(channel, CONNECT, json.dumps({"path": path}).encode())
        kind, payload = answers.get(timeout=timeout)
        if kind != DONE:
            self._channels.pop(channel, None)
            raise GuestError(f"{path}: {payload.decode()}")
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._to_guest, args=(channel, ours), daemon=True).start()
        threading.Thread(target=self._to_host, args=(channel, answers, ours), daemon=True).start()
        return theirs

    def _to_guest(self, channel: int, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                self._send(channel, DATA, data)
            self._send(channel, END)

    def _to_host(self, channel: int, answers: queue.Queue[tuple[int, bytes]], sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                kind, payload = answers.get()
                if kind != DATA:
                    break
                sock.sendall(payload)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._send(channel, FAIL)
        self._channels.pop(channel, None)
        sock.close()

    def forward(self, host_path: Path, guest_path: str) -> None:
        """Every connection to a new socket of the host goes to a socket of the guest. Only this user may connect."""
        host_path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            host_path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(host_path))
        host_path.chmod(0o600)
        listener.listen(16)
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, guest_path), daemon=True).start()

    def _accept(self, listener: socket.socket, guest_path: str) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, guest_path), daemon=True).start()

    def _serve(self, client: socket.socket, guest_path: str) -> None:
        try:
            guest = self.connect(guest_path)
        except (GuestError, queue.Empty, OSError):
            client.close()
            return

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=pump, args=(guest, client), daemon=True)
        back.start()
        pump(client, guest)
        back.join()
        client.close()
        guest.close()
