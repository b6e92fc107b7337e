"""Label files that are made to take long are read in no time: the daemon stands still meanwhile."""

from __future__ import annotations

import time

import pytest

from edgeaid.formats.labels import parse

HOSTILE = {
    "items that do not end": "item {" * 60_000,
    "items in items": "item {" * 30_000 + "}" * 30_000,
    "remarks in remarks": "# " * 60_000 + "item",
    "tabs in a first line": "id" + "\t" * 60_000 + "x\n",
    "names that do not end": "item { " + "name: 'a' " * 20_000 + 'name: "' + "\\\\" * 60_000,
    "a table in Python's notation": "[" + "'a'," * 900_000 + "]",
    "one line": "a" * (4 << 20),
    "escaped quotation marks": 'item { name: "' + '\\"' * 100_000,
    "texts that do not end": "item { " + "'" + '"' * 100_000,
    "spaces between name and number": "a" + " " * 60_000 + "b,x\n" + "a" + " " * 60_000 + "1",
    "spaces behind a number": "\n".join("1" + " " * 60_000 + "x" for _ in range(20)),
    "columns": "id,name" + ",name" * 20 + '\n0,"' + "a" * 100_000 + "\n" * 100_000,
    "names that are not told": "names: [" + "names: " * 100_000,
    "a list of names that does not begin": "names:\n" * 100_000,
    "sums": "[1" + "+1" * 60_000 + "]",
    "signs": "[" + "-" * 120_000 + "1]",
    "objects": "[" + '{"id":1},' * 100_000 + '{"name":"a"}]',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_read_in_no_time(kind: str) -> None:
    started = time.process_time()
    parse(HOSTILE[kind].encode(), 10)
    assert time.process_time() - started < 5  # seconds to minutes before; half a second on an idle machine


def test_items_are_read_with_remarks_and_without_spaces() -> None:
    text = '# remark\n# another {\nitem {\n id: 2\n name: \'b\'\n}\nitem{id:1 name:"a" display_name:"A"}\n'
    assert parse(text.encode()).names == ("", "A", "b")
