"""Stages at work in a daemon: tiles, crops for a second model, one's own, and deadlines."""

from __future__ import annotations

import json
import shutil
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeaid.models.repository import EMBEDDED
from edgeaid.streams.process.asking import merged, tiles
from edgeaid.streams.process.pictures import Digits
from edgeaid.streams.process.tracker import Seen
from tests.support.daemon import Running
from tests.support.landlock import landlock_version
from tests.support.streams import SIZE, TRACKED, accounted, events_of, gone, put, reaches, show
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stage"


def of_kind(daemon: Running, name: str, kind: str) -> list[dict[str, Any]]:
    """Events of one kind, up to the stream's end."""
    return [e for e in events_of(daemon, name) if e["type"] == kind]


def corners(thing: dict[str, Any]) -> tuple[float, ...]:
    return tuple(thing["box"][key] for key in ("xmin", "ymin", "xmax", "ymax"))


@pytest.mark.parametrize(("columns", "rows", "overlap"), [(1, 1, 0.2), (2, 2, 0.0), (3, 2, 0.25), (8, 8, 0.5)])
def test_tiles_cover_the_frame_and_share_what_was_asked_for(columns: int, rows: int, overlap: float) -> None:
    parts = tiles(columns, rows, overlap)
    assert len(parts) == columns * rows
    for x in np.linspace(0.001, 0.999, 41):
        for y in np.linspace(0.001, 0.999, 41):
            assert any(p[0] <= x <= p[2] and p[1] <= y <= p[3] for p in parts)
    side = parts[0][2] - parts[0][0]
    if columns > 1:
        assert parts[0][2] - parts[1][0] == pytest.approx(overlap * side)


def test_an_object_on_the_border_of_two_tiles_is_one_object() -> None:
    seen = [
        Seen("cat", 0.9, (0.30, 0.3, 0.50, 0.5)),
        Seen("cat", 0.7, (0.40, 0.3, 0.52, 0.5)),  # the same one, cut off by the next tile
        Seen("dog", 0.8, (0.40, 0.3, 0.52, 0.5)),
        Seen("cat", 0.6, (0.70, 0.3, 0.90, 0.5)),
    ]
    kept = merged(seen)
    assert [(s.label, s.box) for s in kept] == [
        ("cat", (0.30, 0.3, 0.52, 0.5)), ("dog", (0.40, 0.3, 0.52, 0.5)), ("cat", (0.70, 0.3, 0.90, 0.5)),
    ]  # fmt: skip


def test_small_objects_are_detected_by_tiles_in_their_place_of_the_frame(daemon: Running, tmp_path: Path) -> None:
    # Digits at half of the size that the detector knows, each in a quarter of the frame that a tile looks at alone.
    scene, truth = Digits(SIZE, SIZE).frame(0), Digits(SIZE, SIZE).truth(0)
    frame = Image.new("RGB", (2 * SIZE, 2 * SIZE))
    frame.paste(scene, (SIZE, SIZE))
    for number in range(4):
        frame.save(tmp_path / f"{number}.png")
    stages = [{"detect": "digit-scenes", "tiles": [2, 2], "overlap": 0.0}, {"track": {"confirm": 1}}]
    put(daemon, "tiled", source=str(tmp_path), size=2 * SIZE, stage=stages)
    shown = reaches(daemon, "tiled", "ended")
    assert shown["frames"]["inferred"] == 4
    assert shown["requests"] == 4 * 4
    objects = of_kind(daemon, "tiled", "new")
    assert sorted(o["label"] for o in objects) == sorted(label for label, _ in truth)
    for thing in objects:
        box = dict(truth)[thing["label"]]
        want = [(v + SIZE) / (2 * SIZE) for v in box]
        middle = [(a + b) / 2 for a, b in zip(corners(thing)[:2], corners(thing)[2:], strict=True)]
        assert want[0] < middle[0] < want[2]
        assert want[1] < middle[1] < want[3]
    gone(daemon, "tiled")


def test_a_second_model_is_asked_about_crops_of_what_the_first_one_detected(
    daemon: Running, frames_of_digits: Path
) -> None:
    stages = [*TRACKED, {"classify": "digits", "on": ["2", "7"], "every_s": 0, "threshold": 0.5}]
    put(daemon, "crops", source=str(frames_of_digits), fps=10, stage=stages)
    shown = reaches(daemon, "crops", "ended")
    objects = {e["label"]: e for e in of_kind(daemon, "crops", "end")}
    assert set(objects) == {"2", "5", "7"}
    for label in ("2", "7"):
        assert objects[label]["sub_label"][0] == label
        assert objects[label]["attributes"]["digits"]["classes"][0]["label"] == label
    assert objects["5"]["sub_label"] is None
    assert shown["frames"]["inferred"] == shown["frames"]["captured"] == 40
    gone(daemon, "crops")


def test_a_tracked_object_is_asked_about_again_only_after_its_time(daemon: Running, frames_of_digits: Path) -> None:
    stages = [*TRACKED, {"classify": "digits", "every_s": 3600}]
    put(daemon, "rare", source=str(frames_of_digits), fps=10, stage=stages)
    reaches(daemon, "rare", "ended")
    status, stats = daemon.json("GET", "/v2/models/digits/stats")
    assert status == 200
    before = stats["model_stats"][0]["inference_count"]
    daemon.json("POST", "/edgeai/v1/streams/rare/restart")
    eventually(lambda: show(daemon, "rare")["frames"]["captured"] == 80)
    reaches(daemon, "rare", "ended")
    after = daemon.json("GET", "/v2/models/digits/stats")[1]["model_stats"][0]["inference_count"]
    assert after - before == 3  # once for each of the three digits
    gone(daemon, "rare")


def test_a_change_of_class_of_the_whole_frame_is_an_event(daemon: Running, tmp_path: Path) -> None:
    samples = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))
    for number in range(8):
        shutil.copy(samples[number // 4], tmp_path / f"{number}.png")
    put(daemon, "whole", source=str(tmp_path), stage=[{"classify": "digits"}], events={"settle": 2})
    reaches(daemon, "whole", "ended")
    told = of_kind(daemon, "whole", "class")
    truth = [samples[i].stem.rpartition("-")[2] for i in (0, 1)]
    assert [(e["label"], e["frame"]) for e in told] == [(truth[0], 2), (truth[1], 6)]
    assert told[1]["before"] == truth[0]
    gone(daemon, "whole")


def test_answers_after_the_deadline_are_late_or_dropped_and_every_frame_is_accounted_for(daemon: Running) -> None:
    stages = [{"detect": "digit-scenes", "tiles": [4, 4]}, {"track": {}}]
    put(daemon, "late", source="test:digits?width=384&height=384", fps=20, deadline_ms=1, stage=stages)
    reaches(daemon, "late", "running")

    def some() -> dict[str, Any] | None:
        frames = show(daemon, "late")["frames"]
        return frames if frames["late"] + frames["dropped"]["expired"] > 10 else None

    frames = eventually(some)
    assert frames["late"] <= frames["inferred"]
    daemon.json("POST", "/edgeai/v1/streams/late/stop")
    assert accounted(show(daemon, "late")["frames"])
    gone(daemon, "late")


#: A stage that tells what it may do: each try, by what came of it.
SPY = """
import os, socket

def tries(name, action):
    try:
        action()
        return name
    except OSError as error:
        return f"no {name}"

def spy(secret, daemon, port, elsewhere):
    def connect():
        socket.create_connection(("127.0.0.1", port), 5).close()

    def stage(scene):
        said = [
            tries("read", lambda: open(secret).read()),
            tries("write", lambda: open(elsewhere, "w")),
            tries("signal", lambda: os.kill(daemon, 0)),
            tries("connect", connect),
            tries("start", lambda: os.posix_spawn("/bin/true", ["true"], {})),
        ]
        scene.emit("told", said=said)
    return stage
"""


@pytest.fixture(scope="module")
def with_stage(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon beside which the example package is installed."""
    if not EXAMPLE.is_dir():
        pytest.skip("the examples are not beside the tests here")
    directory = tmp_path_factory.mktemp("own")
    site = directory / "site"
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = site / f"edgeai_night-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    entries = project["entry-points"]["edgeaid.stages"]
    lines = "".join(f"{k} = {v}\n" for k, v in entries.items())
    (metadata / "entry_points.txt").write_text(f"[edgeaid.stages]\n{lines}")
    shutil.copy(EXAMPLE / "edgeai_night.py", site)
    lines += "spy = spy:spy\n"
    (metadata / "entry_points.txt").write_text(f"[edgeaid.stages]\n{lines}")
    (site / "spy.py").write_text(SPY)
    running = launch(directory, env={"PYTHONPATH": str(site)})
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.mark.slow
def test_a_stage_of_ones_own_adds_to_objects_and_tells_events(with_stage: Running, frames_of_digits: Path) -> None:
    put(with_stage, "own", source=str(frames_of_digits), stage=[*TRACKED, {"call": "night", "options": {"limit": 200}}])
    reaches(with_stage, "own", "ended")
    objects = of_kind(with_stage, "own", "end")
    assert objects
    assert all(0 < o["attributes"]["brightness"] < 256 for o in objects)
    assert [(e["frame"], e["stream"]) for e in of_kind(with_stage, "own", "dark")] == [(1, "own")]
    gone(with_stage, "own")


@pytest.mark.slow
def test_a_stage_of_ones_own_reads_no_secrets_writes_nothing_and_reaches_nobody(
    with_stage: Running, tmp_path: Path
) -> None:
    if landlock_version() < 6:
        pytest.skip("this kernel's Landlock has no scopes (Linux 6.12)")
    secret, elsewhere = tmp_path / "secret", tmp_path / "elsewhere"
    secret.write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"secret": str(secret), "elsewhere": str(elsewhere), "port": server.getsockname()[1]}
        options["daemon"] = with_stage.process.pid
        keep = {"journal_mb": 1}
        put(with_stage, "spy", source="test:digits?frames=3", stage=[{"call": "spy", "options": options}], keep=keep)
        eventually(lambda: show(with_stage, "spy")["frames"]["inferred"])
        gone(with_stage, "spy")
    journal = with_stage.directory / "state" / "streams" / "data" / "spy" / "events.jsonl"
    told = json.loads(journal.read_text().splitlines()[0])
    assert told["said"] == ["no read", "no write", "no signal", "no connect", "start"]
    assert not elsewhere.exists()


@pytest.mark.slow
def test_a_stage_that_cannot_be_made_or_is_not_installed_says_so(with_stage: Running) -> None:
    for call, options, reason in (
        ("night", {"limit": 500}, "limit must lie between 0 and 256"),
        ("day", {}, "no installed package has a stage 'day' (entry points of 'edgeaid.stages'); known: night, spy"),
    ):
        put(with_stage, "wrong", source="test:digits", stage=[{"call": call, "options": options}])
        shown = reaches(with_stage, "wrong", "failed")
        assert reason in shown["reason"]
        gone(with_stage, "wrong")
