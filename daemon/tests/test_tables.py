"""TOML from anybody: what cannot be read is refused, soon and in little memory."""

from __future__ import annotations

import contextlib
import tomllib
import tracemalloc

import pytest

from edgeaid import config
from edgeaid.errors import InvalidConfig, InvalidModel
from edgeaid.models import manifest
from edgeaid.provision import settings
from edgeaid.streams import table as streams
from edgeaid.tables import is_number, read_toml

WRONG = {
    "a key of many parts": "a" + ".a" * 20_000 + " = 1",
    "a table of many parts": "[a" + ".a" * 20_000 + "]",
    "a key of many parts in a table": "x = {a" + ".a" * 20_000 + " = 1}",
    "quoted parts": '"a"' + '."#"' * 20_000 + " = 1",
    "nested arrays": "a = " + "[" * 5000 + "]" * 5000,
    "nested tables": "a = " + "{a=" * 5000 + "1" + "}" * 5000,
    "a long number": "a = " + "9" * 5000,
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_would_cost_much_is_refused_for_little(kind: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(tomllib.TOMLDecodeError):
            read_toml(WRONG[kind])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", WRONG)
def test_every_reader_of_peoples_files_says_so(kind: str) -> None:
    with pytest.raises(InvalidModel):
        manifest.parse(WRONG[kind].encode())
    with pytest.raises(InvalidConfig):
        streams.parse(WRONG[kind], "file")
    with contextlib.suppress(InvalidConfig):
        assert settings.parse(WRONG[kind].encode())[1]  # the line is left out, and named


def test_dots_in_comments_and_texts_are_no_keys() -> None:
    assert read_toml("# " + "." * 500 + '\na = "' + "." * 90 + '"\n') == {"a": "." * 90}


@pytest.mark.parametrize("number", [10**400, -(10**5000)], ids=["400 digits", "minus 5000 digits"])
def test_integers_that_no_float_holds_are_refused_where_a_number_is_wanted(number: int) -> None:
    assert not is_number(number)
    with pytest.raises(InvalidConfig, match=r"limits\.idle_seconds: must be a number"):
        config.from_table({"limits": {"idle_seconds": number}})
