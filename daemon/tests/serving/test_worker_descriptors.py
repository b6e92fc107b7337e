"""A worker whose runtime a model has taken over sends descriptors: the daemon keeps none and waits for none."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from edgeaid.errors import DeviceError
from edgeaid.worker.handle import WorkerHandle
from edgeaid.worker.spawner import Spawner
from edgeaid.worker.wire import Kind

#: A worker that answers with a frame of the kind that it is told, and a TCP socket that takes its time to close.
STRANGE = """
import json, os, socket, struct
from edgeaid.worker import wire

def main(fd):
    sock = socket.socket(fileno=fd)
    while True:
        data, _ = wire.receive(sock)
        if not data:
            os._exit(0)
        request = wire.HEADER.unpack_from(data)[4]
        told = json.loads(data[wire.HEADER.size:])
        given = os.memfd_create("answer")
        if told["lingers"]:
            given = socket.create_connection(("127.0.0.1", told["port"]))
            given.setblocking(False)
            try:
                while True:
                    given.send(bytes(65536))
            except BlockingIOError:
                pass
            given.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
            given = given.detach()
        body = wire.PHASES.pack(0, 0, 0) if told["kind"] == wire.Kind.RESULT else b"{}"
        socket.send_fds(sock, [wire.HEADER.pack(told["kind"], 0, 0, 0, request) + body], [given])
        os.close(given)
"""


class Strange(WorkerHandle):
    """The daemon's end of that worker."""

    module: ClassVar[str] = "strange_worker"


@pytest.fixture(autouse=True)
def strange_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that the class above names, where workers find it."""
    (tmp_path / "strange_worker.py").write_text(STRANGE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *filter(None, sys.path))))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.RESULT])
@pytest.mark.parametrize("gives_file", [False, True])
def test_descriptors_that_nobody_asked_for_end_the_worker_and_hold_up_nobody(kind: Kind, gives_file: bool) -> None:
    async def scenario() -> None:
        spawner = Spawner()
        await spawner.start()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ended: list[str] = []
            before = descriptors()
            handle = await Strange.spawn(spawner, "strange", lambda *_: None, ended.append)
            body = {"kind": kind, "lingers": True, "port": listener.getsockname()[1]}
            with pytest.raises(DeviceError, match="descriptors that nobody asked for"):
                await handle.call(Kind.PING, body, timeout=30, gives_file=gives_file)
            held, _ = listener.accept()
            asked = time.monotonic()
            await handle.ended()
            # Closing what came takes 20 seconds, in a thread, unless the one at the other end goes.
            assert time.monotonic() - asked < 10
            held.close()
            while descriptors() > before:
                await asyncio.sleep(0.01)
            assert "nobody asked for" in ended[0]
        spawner.close()

    asyncio.run(scenario())


def test_a_file_in_memory_comes_with_the_answer_that_may_bring_one() -> None:
    async def scenario() -> None:
        spawner = Spawner()
        handle = await Strange.spawn(spawner, "strange", lambda *_: None, lambda _: None)
        body = {"kind": Kind.REPLY, "lingers": False}
        _, files = await handle.call(Kind.DECODE, body, timeout=30, gives_file=True)
        assert len(files) == 1
        os.close(files[0])
        with pytest.raises(DeviceError, match="descriptors that nobody asked for"):
            await handle.call(Kind.DECODE, body, timeout=30)
        spawner.close()

    asyncio.run(scenario())


def test_a_worker_is_not_blamed_for_a_file_whose_client_has_left() -> None:
    async def scenario() -> None:
        spawner = Spawner()
        await spawner.start()
        handle = await Strange.spawn(spawner, "strange", lambda *_: None, lambda _: None)
        body = {"kind": Kind.REPLY, "lingers": False}
        _, files = await handle.call(Kind.DECODE, body, timeout=30, gives_file=True)
        os.close(files[0])
        before = descriptors()
        for _ in range(5):
            call = asyncio.create_task(handle.call(Kind.DECODE, body, timeout=30, gives_file=True))
            await asyncio.sleep(0)  # sent, and not answered yet
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        _, files = await handle.call(Kind.DECODE, body, timeout=30, gives_file=True)
        os.close(files[0])
        assert descriptors() == before
        await handle.stop()
        spawner.close()

    asyncio.run(scenario())
