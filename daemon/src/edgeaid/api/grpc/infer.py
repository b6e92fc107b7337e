"""ModelInfer and ModelStreamInfer over the data plane."""

from __future__ import annotations

from functools import partial
from typing import Final

from ... import errors
from ...serving.access import Peer, Role
from ...serving.holdings import Kind
from ...serving.model import LiveModel, Request
from ...serving.plane import Plane
from .. import inference, oip
from .call import Call, Method, failure
from .frames import varint
from .messages import Last, decode, encode, set_parameter, split
from .methods import parsed
from .reader import Piece
from .schema import MESSAGES


def _final() -> bytes:
    answer = MESSAGES["ModelInferResponse"]()
    set_parameter(answer.parameters, "triton_final_response", True)
    return bytes(answer.SerializeToString())


#: What makes an answer the last one to its request: parts of a message that follow each other are one.
FINAL: Final = _final()
#: Number and type of `infer_response` in ModelStreamInferResponse.
_ANSWER: Final = b"\x12"


def require_infer(peer: Peer) -> None:
    """PermissionDenied for a client that may only look."""
    if peer.role < Role.INFER:
        raise errors.PermissionDenied("the gRPC socket has not the role infer; use HTTP, or set server.grpc_role")


class Inference:
    """Answers requests for inference."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    @property
    def unary(self) -> Method:
        """`ModelInfer`."""
        return Method(self._run, at_once=self._at_once)

    @property
    def stream(self) -> Method:
        """`ModelStreamInfer`."""
        return Method(self._stream, streams=True)

    def _admit(self, peer: Peer) -> None:
        """PermissionDenied, Unavailable."""
        require_infer(peer)
        self.plane.holdings.check(peer.uid, Kind.BYTES, 0)  # one that reads its answers has room

    def _read(self, data: Piece, memory: Last) -> tuple[LiveModel, oip.InferRequest]:
        """The model and what is asked of it. NotFound, InvalidRequest."""
        registry = self.plane.registry
        said = split(data)
        if said is not None and said.head == memory.head:
            live = registry.model(memory.name, memory.version)
            wanted = memory.again(live, said.head, said.tail)
            if wanted is not None:
                return live, wanted
        message = parsed(MESSAGES["ModelInferRequest"], data)
        live = registry.model(message.model_name, message.model_version)
        wanted = decode(message, live)
        if said is not None and not live.noted and said.count == len(message.inputs):
            memory.keep(live, said, wanted, message.model_name, message.model_version)
        return live, wanted

    def _at_once(self, call: Call, data: Piece) -> bool:
        """Answer without a task; not where a picture has to be decoded first."""
        connection, plane = call.connection, self.plane
        self._admit(connection.peer)
        live, wanted = self._read(data, connection.memory)
        if any(given.picture is not None for given in wanted.inputs):
            return False
        request = plane.request(live, connection.peer, priority=wanted.priority, timeout=wanted.timeout)
        try:
            inference.fill(plane, request, wanted, connection.peer)
            request.done = partial(self._done, call, wanted)
            call.request = request
            plane.submit(request)
        except BaseException:
            call.request = None
            request.release()
            raise
        return True

    def _done(self, call: Call, wanted: oip.InferRequest, request: Request) -> None:
        connection = call.connection
        call.request = None
        try:
            if request.error is not None:
                raise request.error
            call.reply(encode(wanted, request, self.plane.regions, connection.peer, connection.memory))
        except Exception as error:
            failed_as = failure(error)
        else:
            return
        finally:
            request.release()
        call.fail(*failed_as)

    async def _answer(self, data: Piece, peer: Peer, memory: Last) -> list[Piece]:
        """Parts of a ModelInferResponse."""
        self._admit(peer)
        live, wanted = self._read(data, memory)
        request = self.plane.request(live, peer, priority=wanted.priority, timeout=wanted.timeout)
        try:
            inference.fill(self.plane, request, wanted, peer)
            await inference.prepare(self.plane, request, wanted)
            await self.plane.infer(request)
            return [bytes(part) for part in encode(wanted, request, self.plane.regions, peer, memory)]
        finally:
            request.release()

    async def _run(self, call: Call) -> None:
        call.reply(await self._answer(await call.message(), call.connection.peer, call.connection.memory))

    async def _stream(self, call: Call) -> None:
        peer, memory = call.connection.peer, call.connection.memory
        while (data := await call.next()) is not None:
            try:
                answer = [*await self._answer(data, peer, memory), FINAL]
            except errors.EdgeaiError as error:
                answer = [self._refused(data, error)]
            else:
                answer.insert(0, _ANSWER + varint(sum(map(len, answer))))
            await call.send(answer)

    def _refused(self, data: Piece, error: errors.EdgeaiError) -> bytes:
        """One request of a stream failed; the stream goes on."""
        answer = MESSAGES["ModelStreamInferResponse"](error_message=str(error))
        answer.infer_response.id = parsed(MESSAGES["ModelInferRequest"], data).id
        errors.answered(error)
        return bytes(answer.SerializeToString())
