"""Assignment, tracks, zones, events and the motion gate: pure parts, tried with many cases."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeaid.errors import InvalidConfig
from edgeaid.streams.process.assignment import assign
from edgeaid.streams.process.frames import Frame
from edgeaid.streams.process.happenings import Happenings
from edgeaid.streams.process.motion import MotionGate
from edgeaid.streams.process.pictures import Digits
from edgeaid.streams.process.tracker import Seen, Tracker
from edgeaid.streams.process.zones import Zones, crosses, side
from edgeaid.streams.table import Motion, Track, from_table, parse

STEP = 100_000


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000), st.floats(0.1, 1.0))
def test_assignment_has_the_least_total_cost(rows: Any, columns: Any, seed: Any, limit: Any) -> None:
    cost = np.random.default_rng(seed).random((rows, columns))
    pairs = assign(cost, limit)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    assert all(cost[r, c] <= limit for r, c in pairs)
    worth = sum(limit - cost[r, c] for r, c in pairs)
    small, large = min(rows, columns), max(rows, columns)
    table = cost if rows <= columns else cost.T
    best = max(
        sum(max(0.0, limit - table[r, c]) for r, c in zip(range(small), order, strict=True))
        for order in itertools.permutations(range(large), small)
    )
    assert worth == pytest.approx(best, abs=1e-6)


def test_digits_that_move_keep_their_numbers_although_some_detections_are_missing() -> None:
    scene, tracker = Digits(384, 384), Tracker(Track(high=0.5))
    rng = np.random.default_rng(5)
    numbers: dict[str, set[int]] = {}
    for frame in range(200):
        seen = [
            Seen(label, float(rng.uniform(0.3, 0.9)), (box[0] / 384, box[1] / 384, box[2] / 384, box[3] / 384))
            for label, box in scene.truth(frame)
            if rng.random() > 0.15
        ]
        tracks, ended = tracker.update(frame * STEP, seen)
        assert not ended
        for track in tracks:
            numbers.setdefault(track.label, set()).add(track.number)
    assert {label: len(kept) for label, kept in numbers.items()} == {"2": 1, "5": 1, "7": 1}


def test_two_objects_that_cross_do_not_change_their_numbers() -> None:
    tracker = Tracker(Track(high=0.5))
    for frame in range(60):
        x = 0.1 + frame * 0.012
        boxes = [(x, 0.4, x + 0.1, 0.6), (0.9 - x, 0.45, 1.0 - x, 0.65)]
        tracks, _ = tracker.update(frame * STEP, [Seen("person", 0.8, box) for box in boxes])
    by_number = sorted(tracks, key=lambda t: t.number)
    assert [t.number for t in by_number] == [1, 2]
    assert by_number[0].box[0] > by_number[1].box[0]


def test_one_glimpse_is_no_object_and_an_object_out_of_sight_ends_after_its_patience() -> None:
    tracker = Tracker(Track(high=0.5, patience_s=1.0))
    tracker.update(0, [Seen("cat", 0.9, (0.1, 0.1, 0.2, 0.2)), Seen("dog", 0.9, (0.7, 0.7, 0.9, 0.9))])
    ended = []
    for frame in range(1, 30):
        seen = [Seen("cat", 0.9, (0.1, 0.1, 0.2, 0.2))] if frame < 10 else []
        tracks, gone = tracker.update(frame * STEP, seen)
        ended += [(frame, t.label) for t in gone]
        assert all(t.label == "cat" for t in tracks)
    assert ended == [(20, "cat")]


def test_weak_detections_continue_a_track_and_start_none() -> None:
    tracker = Tracker(Track(high=0.5, low=0.1))
    for frame in range(20):
        score = 0.9 if frame < 3 else 0.2
        tracks, _ = tracker.update(
            frame * STEP, [Seen("cat", score, (0.1, 0.1, 0.3, 0.3)), Seen("cat", 0.3, (0.7, 0.7, 0.9, 0.9))]
        )
    assert [(t.number, t.fresh) for t in tracks] == [(1, True)]


def test_zones_of_any_shape_hold_what_stands_in_them() -> None:
    zones = Zones(
        {
            "door": ((0.1, 0.5), (0.4, 0.5), (0.4, 1.0), (0.1, 1.0)),
            "horseshoe": ((0, 0), (1, 0), (1, 1), (0.8, 1), (0.8, 0.2), (0.2, 0.2), (0.2, 1), (0, 1)),
        }
    )
    assert zones.around((0.25, 0.75)) == {"door"}
    assert zones.around((0.15, 0.75)) == {"door", "horseshoe"}
    assert zones.around((0.5, 0.5)) == frozenset()
    assert zones.around((0.9, 0.9)) == {"horseshoe"}


def test_only_a_way_through_the_line_itself_crosses_it() -> None:
    line = ((0.5, 0.2), (0.5, 0.6))
    assert side(line, (0.4, 0.4)) == -side(line, (0.6, 0.4)) != 0
    assert crosses(line, (0.4, 0.4), (0.6, 0.4))
    assert not crosses(line, (0.4, 0.9), (0.6, 0.9))
    assert not crosses(line, (0.1, 0.4), (0.4, 0.4))


TABLE = {
    "source": "test:pattern",
    "stage": [{"detect": "m"}, {"track": {}}],
    "zones": {"right": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]},
    "lines": {"middle": [[0.5, 0], [0.5, 1]]},
    "events": {"enter": "right", "leave": "right", "cross": "middle", "dwell_s": 1.0, "update_s": 0},
}


def told(places: list[float], jump: float = 0.0) -> list[tuple[str, int]]:
    """(type, frame) of the events of one object whose middle is at these places, one a frame."""
    happenings, tracker = Happenings(from_table("s", TABLE), "p"), Tracker(Track(high=0.5, confirm=1))
    events = []
    for number, x in enumerate(places):
        wall = 1000.0 + number / 10 + (jump if number > 5 else 0.0)
        frame = Frame(number, 0, 100, 100, number, wall, number * STEP)
        tracks, ended = tracker.update(frame.timestamp, [Seen("cat", 0.9, (x - 0.05, 0.4, x + 0.05, 0.6))])
        events += happenings.update(frame, tracks, ended)
    return [(e["type"], e["frame"]) for e in events]


def test_entering_staying_and_leaving_are_told_once_each() -> None:
    places = [0.3, 0.35, 0.4, 0.45, 0.52, *[0.55] * 14, 0.48, 0.44, 0.4, 0.36]
    assert told(places) == [
        ("new", 0), ("enter", 5), ("cross", 5), ("dwell", 15), ("leave", 20), ("cross", 20),
    ]  # fmt: skip


def test_a_box_that_trembles_at_a_border_makes_no_events() -> None:
    assert told([0.45, *[0.495, 0.505] * 20]) == [("new", 0)]


def test_a_jump_of_the_wall_clock_moves_no_event() -> None:
    places = [0.3, 0.35, 0.4, 0.45, 0.52, *[0.55] * 14]
    assert told(places, jump=-3600.0) == told(places)


def test_the_gate_opens_for_what_moves_and_shuts_again() -> None:
    def frame(x: int | None, light: int = 60) -> Image.Image:
        pixels = np.full((120, 160, 3), light, dtype=np.uint8)
        if x is not None:
            pixels[40:80, x : x + 30] = 220
        return Image.fromarray(pixels)

    gate = MotionGate(Motion(threshold=25, area=0.01, hold_s=0.3))
    passed = [gate.passes(frame(None), n * STEP) for n in range(20)]
    assert passed[0]
    assert not any(passed[5:])
    assert all(gate.passes(frame(10 + 8 * n), (20 + n) * STEP) for n in range(10))
    masked = MotionGate(Motion(area=0.01, hold_s=0.0, masks=(((0, 0), (1, 0), (1, 1), (0, 1)),)))
    masked.passes(frame(None), 0)
    assert not masked.passes(frame(50), STEP)


HEAD = '[stream.a]\nsource = "test:pattern"\n'


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (HEAD + "fsp = 3\n", 3, "fsp"),
        (HEAD + "[stream.a.zones]\n# here\nz = [[0, 0], [2, 0], [0, 1]]\n", 5, "zones.z"),
        (HEAD + "[[stream.a.stage]]\nmotion = {}\n[[stream.a.stage]]\ntrack = {}\n", 5, "stage[1]"),
        (HEAD + '[stream.a.events]\nenter = "door"\n', 4, "door"),
        ("[stream.a]\nfps = 3\n", 1, "source"),
        (HEAD + "zones.z = [\n  [0, 0],\n  [1, 0],\n  [1, 1]\n]\nfsp = 3\n", 8, "fsp"),
        (HEAD + "zones = {z = [[0, 0], # a ] b\n  [1, 0], [1, 1]]}\nfsp = 3\n", 5, "fsp"),
        ('[stream.a]\nsource = """\nfps = 3\n"""\nfps = "x"\n', 5, "fps"),
        ('[stream.a]\nsource = "[[{# \\" "\nfps = "x"\n', 3, "fps"),
        (
            "[stream.a]\nsource = '''/a'''\r\n  [[ stream . 'a' . stage ]]  # x\r\n  motion = { area = 7 }\r\n",
            4,
            "area",
        ),
        ("stream.a.source = '/a'\n\nstream.a.fps = -1\n", 3, "fps"),
        (HEAD + '[[stream.a.webhook]]\nurl = "http://[::1/x"\n', 4, "webhook[0].url"),
        ('[stream."tür"]\nsource = "/a"\n', 1, "letters"),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_line(text: Any, line: int, reason: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse(text, "porch.toml")
    assert f"porch.toml, line {line}: " in str(caught.value)
    assert reason in str(caught.value)
