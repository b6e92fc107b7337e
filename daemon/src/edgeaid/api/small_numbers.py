"""JSON text of numbers that fit a byte, and of FP32, without `json`: for devices that have no orjson.

The pixels of a picture are tens of thousands of numbers from 0 to 255. `json` makes an integer of each; here the text
is laid out in columns of one width, and whole columns are translated and added, in half the time. No numpy, which the
daemon does not load.
"""

from __future__ import annotations

import math
from typing import Final

#: Columns of a number: three digits and a comma; one more where there are spaces.
_WIDTH: Final = 4
_LETTERS: Final = b"0123456789, "
_TAB: Final = bytes.maketrans(b",", b"\t")


def _digits(factor: int) -> bytes:
    """The table that takes a digit for `factor` times its value, and a space for 0."""
    return bytes(factor * (c - 48) if 48 <= c < 58 and factor * (c - 48) < 256 else 0 for c in range(256))


def _marks(marked: bytes) -> bytes:
    """The table that takes these for 1 and all else for 0."""
    return bytes(c in marked for c in range(256))


_ONES: Final = _digits(1)
_TENS: Final = _digits(10)
_HUNDREDS: Final = _digits(100)
#: Tens without hundreds may not be 0, and hundreds without tens are two numbers with a space between them.
_WRONG_TENS: Final = bytes({ord("0"): 1, ord(" "): 2}.get(c, 0) for c in range(256))
_WRONG_HUNDREDS: Final = bytes(1 if c == ord(" ") else 2 for c in range(256))
_IS_TWO: Final = _marks(b"2")
#: Of tens and ones: more than fits behind a 2.
_IS_MORE: Final = _marks(bytes(range(56, 256)))
#: Texts of a byte's values, by datatype.
_TEXTS: Final = {
    "UINT8": tuple(str(number).encode() for number in range(256)),
    "INT8": tuple(str(number - 256 if number > 127 else number).encode() for number in range(256)),
}
#: Significant digits that tell all FP32 apart. `#` keeps the point: 1 would be read as an integer.
_FP32: Final = "%#.9g"


def bytes_of(text: bytes) -> bytes | None:
    """The bytes that numbers with commas between them stand for, with a space behind commas or without.

    None for anything else, and for what is not from 0 to 255 or not how JSON writes a whole number.
    """
    if text.translate(None, _LETTERS):
        return None
    # From the back, each number begins with its ones: the columns of all are the same however many digits it has.
    width = _WIDTH + (b" " in text)
    wide = (b"," + text)[::-1].translate(_TAB).expandtabs(width)
    ones, tens, hundreds = wide[::width], wide[1::width], wide[2::width]
    size = len(ones)
    if (
        size != text.count(b",") + 1
        or b" " in ones
        or hundreds.translate(None, b" 12")
        or any(wide[c::width].strip() for c in range(3, width))
    ):
        return None
    if _both(tens, _WRONG_TENS, hundreds, _WRONG_HUNDREDS):
        return None
    low = _number(ones.translate(_ONES)) + _number(tens.translate(_TENS))  # at most 99 each: nothing is carried
    if _both(low.to_bytes(size, "big"), _IS_MORE, hundreds, _IS_TWO):
        return None  # 256 to 299
    return (low + _number(hundreds.translate(_HUNDREDS))).to_bytes(size, "big")[::-1]


def text_of(data: memoryview, datatype: str) -> bytes | None:
    """JSON's array of the values of a tensor's bytes; None where `json` is to write it."""
    texts = _TEXTS.get(datatype)
    if texts is not None:
        return b"[" + b",".join(map(texts.__getitem__, data)) + b"]"
    if datatype != "FP32":
        return None
    values = tuple(data.cast("f"))
    if not all(map(math.isfinite, values)):
        return None
    text = (f"{_FP32}," * len(values) % values).replace(".,", ".0,")  # JSON wants a digit behind the point
    return f"[{text[:-1]}]".encode()


def _number(column: bytes) -> int:
    return int.from_bytes(column, "big")


def _both(first: bytes, one: bytes, second: bytes, other: bytes) -> bool:
    """Whether two columns have one of these marks in one place."""
    return bool(_number(first.translate(one)) & _number(second.translate(other)))
