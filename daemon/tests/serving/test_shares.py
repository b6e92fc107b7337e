"""What a user may have of a model's slots and of a queue: all processes together, and never what root needs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.users import OTHER, STRANGER, connect_as
from ..support.waiting import eventually

IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy").tobytes()
ASKING = (
    b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    b"Inference-Header-Content-Length: 0\r\nContent-Length: %d\r\n\r\n%b" % (len(IMAGE), IMAGE)
)
#: 32 places in the queue, and slots for those, for 8 under way and for the eighth that is kept.
CONFIG = '[limits]\nqueue = 32\nqueue_per_client = 24\ninvoke_seconds = 60\n[access]\ninfer = ["root"]\n'


@pytest.fixture
def halted(start: Callable[..., Running]) -> Iterator[Running]:
    """A daemon whose worker stands still: what is asked stays."""
    daemon = start(CONFIG)
    pid = daemon.worker()
    os.kill(pid, signal.SIGSTOP)
    yield daemon
    os.kill(pid, signal.SIGCONT)


def asking(daemon: Running, uid: int, count: int) -> list[socket.socket]:
    """So many connections of a user, each with a request under way."""
    sockets = []
    for _ in range(count):
        sock = connect_as(uid, daemon.socket)
        sock.sendall(ASKING)
        sockets.append(sock)
    return sockets


def in_use(daemon: Running) -> int:
    text = daemon.http("GET", "/metrics")[2].decode()
    return int(
        float(
            next(line for line in text.splitlines() if line.startswith('edgeai_slots_in_use{model="digits"')).split()[
                -1
            ]
        )
    )


def refused(sock: socket.socket) -> bytes:
    """What a request is refused with."""
    answer = sock.recv(4096)
    assert answer.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503")), answer
    return answer


def test_one_user_leaves_room_for_another_and_both_leave_some_for_root(halted: Running) -> None:
    greedy = asking(halted, STRANGER, 26)  # 2 with the worker, 24 in the queue
    eventually(lambda: in_use(halted) == 26)
    (over,) = asking(halted, STRANGER, 1)
    assert b"this user has 24 requests waiting" in refused(over)
    other = asking(halted, OTHER, 8)
    eventually(lambda: in_use(halted) == 34)
    (late,) = asking(halted, OTHER, 1)
    assert b"all 32 places are taken" in refused(late)
    root = halted.raw()
    root.sendall(ASKING)
    eventually(lambda: in_use(halted) == 35)
    with halted.client() as client:
        os.kill(client.devices()[0]["pid"], signal.SIGCONT)
    for sock in (*greedy, *other, root):
        assert sock.recv(64).startswith(b"HTTP/1.1 200")
        sock.close()
    eventually(lambda: in_use(halted) == 0)
