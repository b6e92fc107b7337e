"""Sequences of requests that share a model's state: who has which one, and on which device its state is."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidRequest
from ..tensors import ALONE, Turn

#: Sequences of one model that are remembered; the worker keeps the state of far fewer.
MAX_SEQUENCES: Final = 1024
#: As the protocol has it: an unsigned 64-bit number or a text.
Identity = int | str


@dataclass(frozen=True, slots=True)
class Named:
    """What a request says of its sequence."""

    identity: Identity
    start: bool
    end: bool


class Sequences:
    """The sequences of one model. A sequence belongs to the user who began it."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[tuple[int, Identity], int] = OrderedDict()
        self._devices: dict[int, str] = {}
        self._next = 0

    def turn(self, uid: int, named: Named | None, model: str) -> Turn:
        """The request's place in a sequence of user `uid`. InvalidRequest for one that was not begun."""
        if named is None:
            return ALONE
        key = (uid, named.identity)
        if named.start:
            self._forget(key)
            self._next += 1
            self._numbers[key] = self._next
            if len(self._numbers) > MAX_SEQUENCES:
                self._forget(next(iter(self._numbers)))
        number = self._numbers.get(key)
        if number is None:
            raise InvalidRequest(
                f"inference request for sequence {named.identity!r} to model {model!r} must specify the START flag on "
                "the first request of the sequence"
            )
        self._numbers.move_to_end(key)
        if named.end:
            del self._numbers[key]
        return Turn(number, named.start, named.end)

    def _forget(self, key: tuple[int, Identity]) -> None:
        number = self._numbers.pop(key, None)
        if number is not None:
            self._devices.pop(number, None)

    def device(self, number: int) -> str | None:
        """Id of the device that has the sequence's state, None when that was lost."""
        return self._devices.get(number)

    def settle(self, turn: Turn, device: str) -> None:
        """A request of the sequence goes to this device."""
        if turn.end:
            self._devices.pop(turn.number, None)
        else:
            self._devices[turn.number] = device
