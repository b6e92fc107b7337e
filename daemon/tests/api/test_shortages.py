"""No descriptor is left: clients are turned away or refused, the log is not filled, and all is well afterwards."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator

from ..support.daemon import Running
from ..support.memory import open_files

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
#: Too large to go to a process that decodes in the message itself: it needs a file in memory.
PICTURE = b"\x89PNG" + bytes(200_000)
CLASSIFY = b"POST /edgeai/v1/models/digits/classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)


@contextlib.contextmanager
def descriptors(daemon: Running, count: int) -> Iterator[None]:
    """The daemon may have no descriptor numbered above `count`."""
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_connections_for_which_no_descriptor_is_left_hardly_fill_the_log(start: Callable[..., Running]) -> None:
    daemon = start()
    written = daemon.log.stat().st_size
    with contextlib.ExitStack() as held, descriptors(daemon, 3):
        for _ in range(20):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(daemon.socket))
        time.sleep(1.2)  # asyncio asks again each second
    assert daemon.log.stat().st_size - written < 8000
    with daemon.client() as client:
        assert client.is_ready()


def test_a_picture_for_which_no_descriptor_is_left_is_refused_and_the_next_one_is_looked_at(
    start: Callable[..., Running],
) -> None:
    daemon = start()
    with daemon.raw() as sock:
        sock.sendall(LIVE)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        before = len(open_files(daemon.process.pid))
        with descriptors(daemon, 3):
            sock.sendall(CLASSIFY + PICTURE)
            answer = sock.recv(4096)
            assert answer.startswith(b"HTTP/1.1 503"), answer
            assert b"ask again" in answer
        sock.sendall(CLASSIFY + PICTURE)
        assert sock.recv(4096).startswith(b"HTTP/1.1 400")  # it is not a picture
        assert len(open_files(daemon.process.pid)) <= before + 2  # those of a process that decodes
    assert "Traceback" not in daemon.log.read_text()
