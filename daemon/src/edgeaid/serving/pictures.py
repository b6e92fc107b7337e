"""A picture through a model: prepared, inferred, decoded. What every protocol that takes pictures shares.

It goes its way from callback to callback, like a tensor: a task that waits between them would cost each picture some
more turns of the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic as clock
from typing import Any

from ..worker.wire import close_all
from .media import Buffer, Call, result_of
from .model import LiveModel, Request
from .plane import Plane

#: Called once: with the answer, or with the error.
OnAnswer = Callable[[Any, Exception | None], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a picture; None = the model's or the daemon's default."""

    priority: int = 0
    #: Seconds.
    timeout: float | None = None
    threshold: float | None = None
    max_results: int | None = None
    #: The answer is to be drawn.
    draw: bool = False
    #: The body may be the input's bytes.
    tensor: bool = False


class Asked:
    """A picture under way.

    `done` gets the labelled answer as JSON values with the device and times in ms, or PNG bytes when it is drawn; it is
    not called after `cancel`.
    """

    __slots__ = ("_answered", "_body", "_call", "_cancelled", "_client", "_done", "_live", "_placement", "_plane",
                 "_prepared_at", "_question", "_request", "_started")  # fmt: skip

    def __init__(
        self, plane: Plane, live: LiveModel, body: Buffer, client: Hashable, question: Question, done: OnAnswer
    ) -> None:
        """`body` = a JPEG, PNG or BMP file; with `tensor`, when it has exactly that many bytes, the only input's."""
        self._plane = plane
        self._live = live
        self._body = body
        self._client = client
        self._question = question
        self._done = done
        self._request: Request | None = None
        #: What a decoding process has to do.
        self._call: Call | None = None
        self._cancelled = False
        self._placement: dict[str, Any] = {}
        self._started = self._prepared_at = self._answered = 0.0

    def start(self) -> None:
        """Set out. Raises what is in the way at once: QueueFull, Unavailable, InvalidData, InvalidRequest."""
        plane, live, question, body = self._plane, self._live, self._question, self._body
        self._request = request = plane.request(
            live, self._client, priority=question.priority, timeout=question.timeout
        )
        self._started = clock()
        try:
            if question.tensor and _is_tensor(live, body):
                request.inputs[0][:] = body
                self._infer(request, _whole_picture(live.inputs[0].one.shape))
            else:
                self._call = plane.media.picture(live, request.slot, body, self._prepared)
        except Exception:
            request.release()
            raise

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._cancelled = True
        request, call = self._request, self._call
        if request is None:
            return
        if call is None:
            self._plane.withdraw(request)
        elif call.withdraw():
            request.release()

    def _prepared(self, placement: dict[str, Any], _: list[int], error: Exception | None) -> None:
        request, self._call = self._request, None
        if error is not None or self._cancelled or request is None:
            self._end(None, error)
            return
        try:
            self._infer(request, placement)
        except Exception as failure:
            self._end(None, failure)

    def _infer(self, request: Request, placement: dict[str, Any]) -> None:
        self._placement = placement
        self._prepared_at = clock()
        if self._live.ranked_by_worker and not self._question.draw:
            request.question = _question(self._live, self._question.max_results)
        request.done = self._inferred
        self._plane.submit(request)

    def _inferred(self, request: Request) -> None:
        request.done = None  # it would keep this picture, and this picture keeps it, until a garbage collection
        self._answered = clock()
        asked = self._question
        if request.error is not None:
            self._end(None, request.error)
            return
        try:
            if request.ranked:
                ranked = json.loads(request.ranked)
                self._end(self._timed(_named(self._live, self._placement, ranked["classes"]), ranked["ns"] / 1e6), None)
                return
            self._call = self._plane.media.decode(
                self._live,
                request.slot,
                self._placement,
                self._decoded,
                threshold=asked.threshold,
                max_results=asked.max_results,
                drawn_on=self._body if asked.draw else None,
            )
        except Exception as error:
            self._end(None, error)

    def _decoded(self, answer: dict[str, Any], out: list[int], error: Exception | None) -> None:
        self._call = None
        if error is not None or self._cancelled:
            close_all(out)
            self._end(None, error)
            return
        try:
            result = result_of(answer, out)
        except Exception as failure:
            self._end(None, failure)
            return
        if isinstance(result, dict):
            result = self._timed(result, (clock() - self._answered) * 1e3)
        self._end(result, None)

    def _end(self, answer: Any, error: Exception | None) -> None:
        if self._request is not None:
            self._request.release()
        if not self._cancelled:
            self._done(answer, error)

    def _timed(self, result: dict[str, Any], decode_ms: float) -> dict[str, Any]:
        """The whole answer."""
        request, live = self._request, self._live
        assert request is not None  # noqa: S101  it was answered
        phases = request.phases
        return {
            "model": live.name,
            "version": live.version,
            "device": request.answered_by,
            "timing": {
                "prepare_ms": round((self._prepared_at - self._started) * 1e3, 3),
                "queue_ms": round(request.queue_ns / 1e6, 3),
                "input_ms": round(phases[0] / 1e6, 3),
                "compute_ms": round(phases[1] / 1e6, 3),
                "output_ms": round(phases[2] / 1e6, 3),
                "decode_ms": round(decode_ms, 3),
            },
            **result,
        }


async def ask(plane: Plane, live: LiveModel, body: Buffer, client: Hashable, question: Question) -> Any:
    """The answer, waited for; see `Asked`."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(answer: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)

    asked = Asked(plane, live, body, client, question, done)
    asked.start()
    try:
        return await future
    except asyncio.CancelledError:
        if future.cancelled():
            asked.cancel()
        raise


def _question(live: LiveModel, max_results: int | None) -> bytes:
    """For the worker: which classes are wanted of a classifier's scores."""
    rules = live.stored.manifest.output
    assert rules is not None  # noqa: S101  `ranked_by_worker` has looked
    return _question_text(rules.activation, rules.max_results if max_results is None else max_results)


@lru_cache(64)
def _question_text(activation: str, count: int) -> bytes:
    return json.dumps({"activation": activation, "max_results": count}).encode()


def _named(live: LiveModel, placement: dict[str, Any], classes: list[tuple[int, float]]) -> dict[str, Any]:
    """What `vision.results.Classification.to_json` gives, of classes and their scores."""
    labels = live.labels
    return {
        "width": placement["width"],
        "height": placement["height"],
        "classes": [
            {"index": index, "label": (labels[index] if index < len(labels) else "") or str(index), "score": score}
            for index, score in classes
        ],
    }


def _is_tensor(live: LiveModel, body: Buffer) -> bool:
    """Whether a body has exactly the bytes of the model's only input."""
    spec = live.inputs[0].one if len(live.inputs) == 1 else None
    return spec is not None and spec.fixed and len(body) == spec.nbytes


def _whole_picture(shape: tuple[int, ...]) -> dict[str, Any]:
    """Placement of an input tensor that is a whole picture."""
    sides = [d for d in shape if d not in (1, 3)] or [1]
    return {"width": sides[-1], "height": sides[0]}
