"""What edgeaid is measured against: the interpreter alone, behind two bare hops, behind shared memory, and behind gRPC.

The hops are the least that a daemon between client and worker can cost: three processes, nothing else. The worker
computes on a tensor that it has already; client, relay and worker pass 32 bytes over SOCK_SEQPACKET. What this row adds
is the machine's wake-ups; what edgeaid adds beyond it is edgeaid. Beside them: a process that takes tensors through
shared memory and their names through a pipe, as video recorders run their detectors, and servers of Python's gRPC, on
asyncio and with threads, that do nothing but parse the protocol's message, infer and answer: what it costs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
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


@contextmanager
def shared_memory(model: Path, data: Any) -> Iterator[Callable[[], None]]:
    """One call = the tensor copied into shared memory, its name sent to the process that infers, the answer copied."""
    given = SharedMemory(create=True, size=data.nbytes)
    taken = SharedMemory(create=True, size=1 << 16)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def compute() -> None:
        ours.close()
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(model), num_threads=1)
        interpreter.allocate_tensors()
        source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        view = np.ndarray(data.shape, data.dtype, given.buf)
        while message := theirs.recv(64):
            interpreter.set_tensor(source["index"], view)
            interpreter.invoke()
            answer = interpreter.get_tensor(target["index"])
            taken.buf[: answer.nbytes] = answer.tobytes()
            theirs.send(message)

    pid = _child(compute)
    theirs.close()
    raw = data.data.cast("B")

    def once() -> None:
        given.buf[: len(raw)] = raw
        ours.send(b"frame")
        ours.recv(64)
        bytes(taken.buf[:1024])

    try:
        yield once
    finally:
        ours.close()
        os.waitpid(pid, 0)
        for memory in (given, taken):
            memory.close()
            memory.unlink()


_GRPC = """
import asyncio, inspect, sys
from concurrent.futures import ThreadPoolExecutor
import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from ai_edge_litert.interpreter import Interpreter

async def main(asynchronous):
    interpreter = Interpreter(sys.argv[1], num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def infer(request, context):
        data = np.frombuffer(request.raw_input_contents[0], source["dtype"]).reshape(source["shape"])
        interpreter.set_tensor(source["index"], data)
        interpreter.invoke()
        out = interpreter.get_tensor(target["index"])
        answer = service_pb2.ModelInferResponse(model_name="bench", model_version="1")
        answer.outputs.add(name="out", datatype="UINT8", shape=out.shape)
        answer.raw_output_contents.append(out.tobytes())
        return answer

    async def infer_async(request, context):
        return infer(request, context)

    handler = grpc.unary_unary_rpc_method_handler(
        infer_async if asynchronous else infer, service_pb2.ModelInferRequest.FromString,
        service_pb2.ModelInferResponse.SerializeToString)
    server = grpc.aio.server() if asynchronous else grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})])
    server.add_insecure_port("unix:" + sys.argv[2])
    started = server.start()
    if inspect.isawaitable(started):
        await started
        await server.wait_for_termination()
    else:
        server.wait_for_termination()

asyncio.run(main(sys.argv[3] == "asynchronous"))
"""


def over_grpc(path: Path, name: str, data: Any) -> Callable[[], None]:
    """One call = a request of Triton's client, on a connection of its own, to what serves at `path`."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(f"unix:{path}")
    tensor = triton.InferInput(name, list(data.shape), "UINT8")
    tensor.set_data_from_numpy(data)
    return lambda: client.infer("bench", [tensor]) and None


@contextmanager
def bare_grpc(model: Path, data: Any, *, asynchronous: bool = True) -> Iterator[Path]:
    """The socket of a server that has the interpreter in its own process; its input may have any name."""
    with tempfile.TemporaryDirectory(prefix="edgeai-grpc-floor-") as folder:
        path = Path(folder) / "s"
        command = [sys.executable, "-c", _GRPC, str(model), str(path), "asynchronous" if asynchronous else ""]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not path.exists():
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError("the bare server of gRPC does not start")
                time.sleep(0.1)
            over_grpc(path, "in", data)()
            yield path
        finally:
            process.terminate()
            process.wait(20)
