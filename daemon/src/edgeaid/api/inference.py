"""An Open Inference Protocol request from its bytes to the slot and back, for every transport that carries it."""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from ..config import Limits
from ..errors import InvalidRequest
from ..serving.access import Peer
from ..serving.model import LiveModel, Request
from ..serving.plane import Plane
from ..serving.shm import Region
from . import answers, large_json, oip
from .large_json import LARGE
from .steps import Steps, finish, in_turns

T = TypeVar("T")

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
#: Answers below this are not worth compressing.
MIN_COMPRESS: Final = 256
#: JSON longer than this is read in a thread: its brackets are compared in one step.
LONG_JSON: Final = 1 << 20
#: JSON above this is not compared with the last one: it carries the tensors themselves.
MEMORABLE: Final = 4096


class Memory:
    """What a connection asked last. Clients ask the same again about other tensors: that needs no second parsing."""

    __slots__ = ("answer", "device", "head", "live", "sizes", "tail", "wanted")

    def __init__(self) -> None:
        self.live: LiveModel | None = None
        self.head = b""
        self.tail = 0
        #: Bytes of each input in the body's binary tail.
        self.sizes: tuple[int, ...] = ()
        self.wanted: oip.InferRequest | None = None
        #: JSON of the answer when all outputs are binary tensors, which only differs when another device answers.
        self.answer = b""
        self.device = ""

    def again(self, live: LiveModel, head: bytes, tail: memoryview) -> oip.InferRequest | None:
        """The request if it is the last one with other bytes in its tensors."""
        wanted = self.wanted
        if wanted is None or live is not self.live or head != self.head or len(tail) != self.tail:
            return None
        inputs = []
        offset = 0
        for given, size in zip(wanted.inputs, self.sizes, strict=True):
            inputs.append(oip.InputTensor(given.index, tail[offset : offset + size]))
            offset += size
        return oip.InferRequest(wanted.id, tuple(inputs), wanted.outputs, wanted.priority, wanted.timeout)

    def learn(self, live: LiveModel, head: bytes, tail: memoryview, wanted: oip.InferRequest) -> None:
        """Keep a request whose inputs all lie in its tail."""
        self.wanted, self.answer = None, b""
        views = [given.data for given in wanted.inputs]
        if all(isinstance(view, memoryview) for view in views):
            self.live, self.head, self.tail = live, head, len(tail)
            self.sizes = tuple(len(view) for view in views)  # type: ignore[arg-type]  # views of the tail
            self.wanted = replace(wanted, inputs=tuple(oip.InputTensor(g.index, None) for g in wanted.inputs))


async def in_thread(plane: Plane, function: Callable[..., T], *args: object) -> T:
    """Call in a thread and wait for its end even when cancelled: it works on memory that is given back then.

    Few at a time: each that computes has the interpreter's lock now and then, and the event loop needs it often.
    """
    async with plane.computing:
        return await _in_thread(function, *args)


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    future = asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.exception()  # looked at: else asyncio writes it to the log when nobody is there to get it
        raise
    finally:
        del future  # it keeps its error, whose traceback has this frame: the arguments would stay until a collection


def body_limit(live: LiveModel, limits: Limits, header_length: str | None) -> int:
    """Bytes of a body that a request of this model may have."""
    limit = oip.json_limit(live.inputs)
    if header_length is not None:  # tensors follow the JSON, or a picture
        limit += max(limits.picture_bytes, sum(s.capacity for s in live.inputs))
    return min(limit, limits.body_bytes)


def decode(
    live: LiveModel, body: oip.Body, header_length: str | None, depth: int, memory: Memory | None = None
) -> oip.InferRequest:
    """What a body asks of a model. InvalidRequest says what is wrong with it."""
    start, tail = oip.split(body, header_length)
    if memory is not None and not live.noted and len(start) <= MEMORABLE:
        head = bytes(start)
        wanted = memory.again(live, head, tail)
        if wanted is None:
            wanted = _decode(live, head, tail, depth)
            memory.learn(live, head, tail, wanted)
        return wanted
    return _decode(live, start, tail, depth)


def _decode(live: LiveModel, head: oip.Body, tail: memoryview, depth: int) -> oip.InferRequest:
    if len(head):
        return oip.parse(head, tail, live.inputs, live.outputs, depth)
    return oip.parse_raw(tail, live.inputs, live.outputs, live.name)


def fill(plane: Plane, request: Request, wanted: oip.InferRequest, peer: Peer) -> None:
    """Copy the inputs that are tensors into the request's slot: the one copy they make in the daemon."""
    if request.live.noted:
        _describe(request, wanted, peer)
    places = request.inputs
    for given in wanted.inputs:
        if isinstance(given.data, Region):
            plane.regions.read(given.data, places[given.index], peer)
        elif given.data is not None:
            places[given.index][:] = given.data


def _describe(request: Request, wanted: oip.InferRequest, peer: Peer) -> None:
    """Pass the worker the sizes and shapes of this request's inputs, and its sequence."""
    live = request.live
    shapes = [spec.one.shape for spec in live.inputs]
    sizes = [0 if spec.datatype == "BYTES" else spec.one.nbytes for spec in live.inputs]
    for given in wanted.inputs:
        if given.picture is None:
            shapes[given.index] = given.shape or live.inputs[given.index].shape
            data = given.data
            sizes[given.index] = data.size if isinstance(data, Region) else len(data or b"")
    if live.max_batch and len({shape[:1] for shape in shapes}) > 1:
        raise InvalidRequest(f"the inputs have different batch sizes: {', '.join(str(s[0]) for s in shapes)}")
    if live.max_batch and shapes and not 0 < shapes[0][0] <= live.max_batch:
        raise InvalidRequest(
            f"inference request batch-size must be from 1 to {live.max_batch} for {live.name!r}, not {shapes[0][0]}"
        )
    named = wanted.sequence if live.state else None
    request.describe(shapes, sizes, live.sequences.turn(peer.uid, named, live.name))


async def serve(
    plane: Plane,
    live: LiveModel,
    body: oip.Body,
    header_length: str | None,
    peer: Peer,
    accept: str,
    turn: Callable[[], Awaitable[None]],
) -> tuple[dict[str, str], bytes]:
    """(headers, body) of the answer to a request's body; takes turns, threads and other processes where it needs those.

    `turn` waits for the client's turn in the event loop.
    """
    start, tail = oip.split(body, header_length)
    if len(start) > LARGE:
        wanted = await _read(plane, live, start, tail, turn)
    else:
        wanted = _decode(live, start, tail, plane.config.limits.json_depth)
    request = plane.request(live, peer, priority=wanted.priority, timeout=wanted.timeout)
    try:
        fill(plane, request, wanted, peer)
        await prepare(plane, request, wanted)
        await plane.infer(request)
        answering = (plane, request, wanted, peer, accept)
        if answers.is_heavy(wanted, live.outputs, accept):
            headers, pieces = await in_thread(plane, answer, *answering)
        else:
            headers, pieces = answer(*answering)
        return headers, b"".join(pieces)
    finally:
        request.release()


async def _read(
    plane: Plane, live: LiveModel, head: memoryview, tail: memoryview, turn: Callable[[], Awaitable[None]]
) -> oip.InferRequest:
    """`_decode` for much JSON."""
    oip.check_size(head, live.inputs)
    short = len(head) <= LONG_JSON
    cutting = large_json.cutting(head)
    cut = await (in_turns(cutting, turn) if short else in_thread(plane, finish, cutting))

    def reading() -> Steps[oip.InferRequest]:
        message = cut.value(plane.config.limits.json_depth)
        return (yield from oip.reading(message, tail, live.inputs, live.outputs))

    short = short and len(cut.rest) <= LARGE
    return await (in_turns(reading(), turn) if short else in_thread(plane, finish, reading()))


async def prepare(plane: Plane, request: Request, wanted: oip.InferRequest) -> None:
    """Have the inputs that are pictures decoded into the request's slot."""
    for given in wanted.inputs:
        if given.picture is not None:
            await plane.media.prepare(request.live, request.slot, given.picture)


def answer(
    plane: Plane, request: Request, wanted: oip.InferRequest, peer: Peer, accept: str, memory: Memory | None = None
) -> tuple[dict[str, str], list[oip.Body]]:
    """(headers, pieces of the body) of an answered request. The pieces may lie in its slot: send, then release."""
    live, outputs = request.live, request.outputs
    known = (
        memory is not None and not live.noted and memory.wanted is not None and memory.wanted.outputs is wanted.outputs
    )
    device = request.answered_by
    if known and memory.answer and memory.device == device:  # type: ignore[union-attr]  # known
        head: bytes = memory.answer  # type: ignore[union-attr]  # known
        parts: list[oip.Body] = [outputs[want.index] for want in wanted.outputs]
    else:
        specs = request.output_specs
        for want in wanted.outputs:
            if want.region is not None:
                plane.regions.write(want.region, outputs[want.index], peer)
        head, parts = answers.answer(wanted, live.name, live.version, specs, outputs, live.labels, device)
        if known and all(w.binary and not w.classes and w.region is None for w in wanted.outputs):
            memory.answer, memory.device = head, device  # type: ignore[union-attr]  # known
    headers = {"Content-Type": BINARY, HEADER_LENGTH: str(len(head))} if parts else {"Content-Type": JSON}
    pieces = [head, *parts]
    if accept and sum(map(len, pieces)) >= MIN_COMPRESS:
        accepted = {
            a.partition(";")[0].strip() for a in accept.lower().split(",") if not a.replace(" ", "").endswith(";q=0")
        }
        if "gzip" in accepted:
            pieces = [zlib.compress(b"".join(pieces), 1, wbits=31)]
            headers["Content-Encoding"] = "gzip"
        elif "deflate" in accepted:
            pieces = [zlib.compress(b"".join(pieces), 1)]
            headers["Content-Encoding"] = "deflate"
    return headers, pieces
