"""What edgeaid is measured against: the interpreter alone, and the interpreter behind two bare hops.

The hops are the least that a daemon between client and worker can cost: three processes, nothing else. The worker
computes on a tensor that it has already; client, relay and worker pass 32 bytes over SOCK_SEQPACKET. What this row adds
is the machine's wake-ups; what edgeaid adds beyond it is edgeaid.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def raw_loop(model: Path) -> tuple[Callable[[], None], Any]:
    """The floor: the interpreter in this process."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    data = (np.arange(int(np.prod(given["shape"]))) * 31 % 256).astype(given["dtype"]).reshape(given["shape"])

    def once() -> None:
        interpreter.set_tensor(given["index"], data)
        interpreter.invoke()
        interpreter.get_tensor(wanted["index"])

    return once, data


def _child(serve: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        serve()
        os._exit(0)
    return pid


@contextmanager
def bare_hops(model: Path) -> Iterator[Callable[[], None]]:
    """One call = client -> relay -> worker (one inference) -> relay -> client."""
    client, front = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    back, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def relay() -> None:
        client.close()
        worker.close()
        while message := front.recv(64):
            back.send(message)
            front.send(back.recv(64))

    def compute() -> None:
        for other in (client, front, back):
            other.close()
        once, _ = raw_loop(model)
        while message := worker.recv(64):
            once()
            worker.send(message)

    pids = [_child(compute), _child(relay)]
    for other in (front, back, worker):
        other.close()

    def once() -> None:
        client.send(b"x" * 32)
        client.recv(64)

    try:
        yield once
    finally:
        client.close()
        for pid in pids:
            os.waitpid(pid, 0)
