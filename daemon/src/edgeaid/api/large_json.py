"""JSON that is too large to be read in one step.

Large requests are large for two reasons: the base64 of files, and the numbers of tensors. Both are cut out here by
searches that take little time each, and what is left is parsed like any small request. In the event loop others have
their turns between the steps; in a thread the interpreter's lock is given up between them.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InvalidRequest, TooLarge
from ..tensors import TensorSpec
from . import json_text
from .json_text import load_numbers, loads
from .small_numbers import bytes_of
from .steps import Steps, finish
from .tensor_json import TYPECODES, pack, same_nesting

#: Bytes searched or converted at once.
PIECE: Final = 1 << 14
#: JSON longer than this is read here.
LARGE: Final = 1 << 14
#: Arrays and texts longer than this are cut out.
LONG_ARRAY: Final = 1 << 12
LONG_TEXT: Final = 1 << 16
#: Bytes looked through for either at once.
WINDOW: Final = 1 << 12
#: What may be left.
MAX_REST: Final = 1 << 17
MAX_PARTS: Final = 1024
MAX_ESCAPES: Final = 20_000
#: Brackets around the values of a tensor.
MAX_NESTING: Final = 100
#: Characters of one number.
LONG: Final = 1 << 12

_NUMERIC: Final = re.compile(rb"[-+0-9.eE, \t\r\n\[\]truefalsn]*")
#: What most pieces are made of, so that most need no regular expression.
_PLAIN: Final = b"0123456789., -"
_NO_SKELETON: Final = bytes(c for c in range(256) if c not in b"[],")
#: A value beside a bracket where only a comma may stand, in a text without white space. Each begins with the bracket:
#: the search then goes from one to the next instead of trying every digit.
_BEFORE: Final = re.compile(rb"\[(?<=[^,\[\]]\[)")
_AFTER: Final = re.compile(rb"\][^,\[\]]")
_SPACES: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Text:
    """The inside of a long text, not unescaped."""

    raw: memoryview

    def text(self) -> str:
        """The text that it stands for. InvalidRequest."""
        try:
            text: str = json.loads(b'"%b"' % bytes(self.raw))
        except ValueError as error:
            raise InvalidRequest("request is not valid JSON") from error
        return text

    def base64(self) -> bytearray:
        """The bytes that it stands for. binascii.Error."""
        # One block of the final size: many pieces would leave a heap as large behind.
        out = bytearray(len(self.raw) // 4 * 3 + 3)
        size = 0
        rest = b""
        for at in range(0, len(self.raw), PIECE):
            piece = rest + bytes(self.raw[at : at + PIECE])
            whole = len(piece) - 1 if piece.endswith(b"\\") else len(piece)
            plain = piece[:whole].replace(b"\\/", b"/")  # some encoders escape the slash
            last = at + PIECE >= len(self.raw)
            cut = len(plain) if last else len(plain) - len(plain) % 4
            data = binascii.a2b_base64(plain[:cut], strict_mode=True)
            out[size : size + len(data)] = data
            size += len(data)
            rest = plain[cut:] + piece[whole:]
        del out[size:]
        return out


@dataclass(frozen=True, slots=True)
class Numbers:
    """The text of an array of numbers, not parsed yet."""

    text: memoryview

    def encode(self, spec: TensorSpec) -> bytes:
        """The array as a tensor's bytes. InvalidRequest."""
        return finish(self.encoding(spec))

    def encoding(self, spec: TensorSpec) -> Steps[bytes]:
        """The same in steps."""
        what = f"input {spec.name!r}"
        if spec.datatype not in TYPECODES:
            raise InvalidRequest(f"{what} of datatype {spec.datatype} has no JSON form; send it as binary data")
        differs = InvalidRequest(f"{what}: data is nested differently from shape {list(spec.shape)}")
        flat = yield from self._is_flat()
        if not flat:
            skeleton = bytearray()
            for piece in self._pieces():
                skeleton += piece.translate(None, _NO_SKELETON)
                yield
            if not _is_nested(bytes(skeleton), spec.shape):
                raise differs
        out = bytearray()
        rest = b""
        for piece in self._pieces():
            yield
            text = rest + piece
            if not flat and _misplaced(text):  # the only brackets of a flat array are its first and last characters
                raise InvalidRequest(f"{what}: data is not an array of numbers")
            cut = text.rfind(b",") + 1
            text, rest = text[:cut], text[cut:]
            if len(rest) > LONG:
                raise InvalidRequest(f"{what}: a value has more than {LONG} characters")
            out += _packed(text, spec, flat)
        last = _packed(rest, spec, flat)
        if not last:
            raise InvalidRequest(f"{what}: data is not an array of numbers")  # it ends with a comma
        out += last
        if len(out) != spec.nbytes:
            raise differs
        return bytes(out)

    def _is_flat(self) -> Steps[bool]:
        """Whether the brackets around all are the only ones."""
        count = 0
        for piece in self._pieces():
            count += piece.count(b"[") + piece.count(b"]")
            if count > 2:
                return False
            yield
        return count == 2

    def _pieces(self) -> Iterator[bytes]:
        for at in range(0, len(self.text), PIECE):
            yield bytes(self.text[at : at + PIECE])


def whole(data: object) -> object:
    """An array of texts, those that were cut out among them, with all of them whole."""
    if isinstance(data, list) and any(isinstance(item, Text) for item in data):
        return [item.text() if isinstance(item, Text) else item for item in data]
    return data


def _packed(text: bytes, spec: TensorSpec, flat: bool) -> bytes:
    plain = text.strip(b"[] \t\r\n") if flat else text.translate(None, b"[]").strip()
    plain = plain.removesuffix(b",")
    if not plain:
        return b""
    if spec.datatype == "UINT8" and json_text.orjson is None and (packed := bytes_of(plain)) is not None:
        return packed
    try:
        values = load_numbers(b"[" + plain + b"]", spec.datatype)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"input {spec.name!r}: data is not an array of numbers") from error
    return pack(values, spec)


def _misplaced(text: bytes) -> bool:
    """Whether a value stands beside a bracket where only a comma may."""
    plain = text.translate(None, _SPACES)
    return _BEFORE.search(plain) is not None or _AFTER.search(plain) is not None


def _nested(shape: tuple[int, ...]) -> bytes:
    """Brackets and commas of an array of this shape."""
    text = b""
    for depth, size in enumerate(reversed(shape)):
        text = b"[" + (b"," * (size - 1) if depth == 0 else b",".join([text] * size)) + b"]"
    return text


def _is_nested(skeleton: bytes, shape: tuple[int, ...]) -> bool:
    """Whether brackets and commas are those of an array of `shape`, or with more or fewer dimensions of 1."""
    if skeleton.count(b",") + 1 != math.prod(shape):
        return False
    if skeleton == _nested(shape):
        return True
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    if not 0 < depth <= MAX_NESTING:
        return False
    unit = skeleton[depth - 1 : skeleton.find(b"]") + 1]
    given = [len(unit) - 1]
    for start in range(depth - 2, -1, -1):
        last = skeleton.find(unit + b"]", start)
        if last < 0:
            return False
        given.insert(0, (last - start - 1) // (len(unit) + 1) + 1)
        unit = skeleton[start : last + len(unit) + 1]
    return skeleton == _nested(tuple(given)) and same_nesting(given, shape)


def parse(raw: bytes | bytearray | memoryview, depth: int) -> Any:
    """The value of a JSON text; long texts stand in it as Text, long arrays of numbers as Numbers.

    InvalidRequest; TooLarge when there is much besides.
    """
    return finish(cutting(raw)).value(depth)


def cutting(raw: bytes | bytearray | memoryview) -> Steps[Cut]:
    """The first half of `parse`, which is the longer one, in steps."""
    cut = Cut(bytes(raw) if isinstance(raw, memoryview) else raw)
    yield from cut.through()
    return cut


class Cut:
    """A JSON text whose long parts are cut out."""

    def __init__(self, raw: bytes | bytearray) -> None:
        self._raw = raw
        self._parts: list[memoryview] = []
        #: What is left; a part is stood for by a text that begins with a NUL.
        self.rest = bytearray()

    def through(self) -> Steps[None]:
        """Go through the text."""
        at = 0
        while at < len(self._raw):
            at = yield from self._step(at)
            yield

    def value(self, depth: int) -> Any:
        """What the text says. InvalidRequest."""
        return self._filled(loads(bytes(self.rest), depth))

    def _filled(self, value: Any) -> Any:
        """`value` with the parts in their places."""
        if isinstance(value, dict):
            return {k: self._filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if isinstance(value, str) and value.startswith("\0"):
            number = value[1:]
            if not number.isdecimal() or len(number) > 4 or int(number) >= len(self._parts):
                raise InvalidRequest("a text begins with a NUL")
            part = self._parts[int(number)]
            return Numbers(part) if part[0] == ord("[") else Text(part[1:-1])
        return value

    def _step(self, at: int) -> Steps[int]:
        raw = self._raw
        window = min(at + WINDOW, len(raw))
        quote = raw.find(b'"', at, window)
        bracket = raw.find(b"[", at, quote if quote >= 0 else window)
        if bracket >= 0:
            start, end, long = bracket, (yield from self._numbers(bracket)), LONG_ARRAY
        elif quote >= 0:
            start, end, long = quote, (yield from self._text(quote)), LONG_TEXT
        else:
            start = end = window
            long = 0
        if end - start > long and long:
            self._keep(at, start)
            if len(self._parts) >= MAX_PARTS:
                raise TooLarge(f"the request has more than {MAX_PARTS} long texts and arrays")
            self.rest += b'"\\u0000%d"' % len(self._parts)
            self._parts.append(memoryview(raw)[start:end])
        else:
            end = max(end, start + 1) if long else end
            self._keep(at, end)
        return end

    def _keep(self, start: int, end: int) -> None:
        if len(self.rest) + end - start > MAX_REST:
            raise TooLarge(
                f"the request has more than {MAX_REST} bytes of JSON beside long texts and arrays of numbers"
            )
        self.rest += self._raw[start:end]

    def _text(self, start: int) -> Steps[int]:
        """End of the text that begins at `start`."""
        raw, at = self._raw, start + 1
        for _ in range(MAX_ESCAPES):
            quote = -1
            while quote < 0:
                if at >= len(raw):
                    raise InvalidRequest("request is not valid JSON: a text does not end")
                quote = raw.find(b'"', at, at + (PIECE << 4))
                at = at + (PIECE << 4) if quote < 0 else quote + 1
            slashes = 1
            while slashes < MAX_ESCAPES and raw[quote - slashes] == ord("\\"):
                slashes += 1
            if slashes % 2:
                return quote + 1
            yield
        raise TooLarge(f"a text has more than {MAX_ESCAPES} escaped quotation marks")

    def _numbers(self, start: int) -> Steps[int]:
        """End of the array of numbers that begins at `start`; `start` when it is short or something else is in it."""
        raw, at = self._raw, start
        while at < len(raw):
            piece = raw[at : at + PIECE] if at > start else b""
            if len(piece) == PIECE and not piece.translate(None, _PLAIN):
                at += PIECE
                yield
                continue
            match = _NUMERIC.match(raw, at, at + PIECE)
            end = match.end() if match is not None else at
            whole = end == at + PIECE
            at = end
            if not whole:
                break
            yield
        if at - start <= LONG_ARRAY:
            return start
        # Back to its closing bracket: a comma and white space may have followed.
        while raw[at - 1] in b", \t\r\n":
            at -= 1
        if raw[at - 1] != ord("]"):
            raise InvalidRequest("request is not valid JSON, or has texts among many numbers")
        return at
