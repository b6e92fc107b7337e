"""A daemon with streams: from a source through a detector to events, and every frame accounted for."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from edgeaid.cli import main
from edgeaid.client import Client
from edgeaid.client.streams import Streams
from edgeaid.streams.feed import Feed
from edgeaid.streams.memory import Count, Shared
from edgeaid.streams.toml_lines import lines_of
from tests.support.streams import TRACKED, accounted, events_of, gone, put, reaches, show
from tests.support.waiting import eventually

from ..support.daemon import Running


def test_a_directory_of_pictures_becomes_tracked_events_and_every_frame_is_inferred(
    daemon: Running, frames_of_digits: Any
) -> None:
    put(daemon, "walk", source=str(frames_of_digits), fps=10, stage=TRACKED)
    shown = reaches(daemon, "walk", "ended")
    assert shown["frames"]["captured"] == shown["frames"]["inferred"] == 40
    assert accounted(shown["frames"])
    told = events_of(daemon, "walk")
    started = [e for e in told if e["type"] == "new"]
    assert {e["label"] for e in started} == {"2", "5", "7"}
    assert {e["id"] for e in told if e["type"] == "end"} == {e["id"] for e in started}
    assert [e["state"] for e in told if e["type"] == "state"] == ["starting", "running", "ended"]
    metrics = daemon.http("GET", "/metrics")[2].decode()
    assert 'edgeai_stream_frames_total{stream="walk",end="captured"} 40\n' in metrics
    assert 'edgeai_stream_frames_total{stream="walk",end="inferred"} 40\n' in metrics
    gone(daemon, "walk")


@pytest.mark.parametrize("reader", ["gstreamer", "ffmpeg"])
def test_a_video_file_waits_for_the_detector(daemon: Running, video: Any, reader: str) -> None:
    if not shutil.which({"gstreamer": "gst-launch-1.0", "ffmpeg": "ffmpeg"}[reader]):
        pytest.skip(f"{reader} is not installed")
    put(daemon, "video", source=str(video), fps=10, reader=reader, stage=TRACKED)
    shown = reaches(daemon, "video", "ended")
    assert 39 <= shown["frames"]["captured"] <= 41
    assert shown["frames"]["inferred"] == shown["frames"]["captured"]
    labels = {e["label"] for e in events_of(daemon, "video") if e["type"] == "new"}
    assert labels >= {"2", "7"}
    gone(daemon, "video")


def test_a_live_source_that_is_faster_than_its_models_drops_frames_and_says_so(daemon: Running) -> None:
    put(daemon, "fast", source="test:digits?width=384&height=384", fps=400, stage=TRACKED, share=0.05)
    reaches(daemon, "fast", "running")
    shown = eventually(lambda: (s := show(daemon, "fast"))["frames"]["dropped"]["busy"] > 20 and s)
    assert shown["frames"]["inferred"] < shown["frames"]["captured"]
    daemon.json("POST", "/edgeai/v1/streams/fast/stop")
    shown = show(daemon, "fast")
    assert shown["state"] == "stopped"
    assert shown["frames"]["under_way"] == 0
    assert accounted(shown["frames"])
    gone(daemon, "fast")


def test_events_can_be_taken_up_again_where_a_listener_left_off(daemon: Running, frames_of_digits: Any) -> None:
    put(daemon, "again", source=str(frames_of_digits), stage=TRACKED)
    reaches(daemon, "again", "ended")
    told = events_of(daemon, "again")
    with Client(daemon.socket, fast=False) as client:
        following = Streams(client).events("again", after=told[2]["event_id"])
        assert next(following)["event_id"] == told[3]["event_id"]
        from_another_run = Streams(client).events("again", after="00000000-3")
        assert next(from_another_run)["event_id"] == told[0]["event_id"]
        only = Streams(client).events("again", types=("end",))
        assert next(only)["type"] == "end"
    gone(daemon, "again")


def test_a_result_comes_for_each_frame_while_somebody_listens(daemon: Running) -> None:
    put(daemon, "look", source="test:digits?width=384&height=384", fps=20, stage=TRACKED)
    with Client(daemon.socket, fast=False) as client:
        reaches(daemon, "look", "running")
        following = Streams(client).results("look")
        seen = [next(following) for _ in range(10)]
    numbers = [s["frame"] for s in seen]
    assert numbers == sorted(set(numbers))
    assert seen[-1]["time"] - seen[1]["time"] < 6  # unheard, results are sent once a second
    gone(daemon, "look")


def test_a_wrong_table_is_refused_with_its_reason_and_the_old_one_goes_on(daemon: Running) -> None:
    put(daemon, "keep", source="test:digits", fps=5, stage=TRACKED)
    pid = eventually(lambda: show(daemon, "keep")["pid"])
    for table, reason in (
        ({"source": "test:digits", "stage": [{"detect": "digit-scenes", "labls": ["2"]}]}, "stage[0].labls"),
        ({"source": "test:digits", "stage": [{"detect": "nothing-like-it"}]}, "no model 'nothing-like-it'"),
        ({"source": "gopher://camera"}, "scheme"),
        ({"source": "test:digits", "fps": True}, "fps"),
        ({"source": "test:digits", "zones": {"z": [[0, 0], [1, 1]]}}, "zones.z"),
        ({"source": "test:digits", "stage": [{"track": {}}]}, "nothing to track"),
    ):
        status, answer = daemon.json("PUT", "/edgeai/v1/streams/keep", table)
        assert (status, reason in answer["error"]) == (400, True), answer
    zones = "".join(f"z{i} = [[0, 0], [1, 0], [1, 1]]\n" for i in range(10_000))
    text = f'[stream.keep]\nsource = "test:digits"\n[stream.keep.zones]\n{zones}'
    headers = {"Content-Type": "application/toml"}
    status, _, data = daemon.http("PUT", "/edgeai/v1/streams/keep", text.encode(), headers)
    assert (status, b"has 10000 entries" in data) == (400, True), data
    assert show(daemon, "keep")["pid"] == pid
    gone(daemon, "keep")


def test_a_stream_whose_process_is_killed_comes_back_and_its_lost_frames_are_counted(daemon: Running) -> None:
    put(daemon, "hit", source="test:digits?width=384&height=384", fps=50, stage=TRACKED)
    before = reaches(daemon, "hit", "running")
    os.kill(before["pid"], signal.SIGKILL)
    after = eventually(
        lambda: (s := show(daemon, "hit"))["pid"] not in (None, before["pid"]) and s["state"] == "running" and s
    )
    assert after["restarts"] == 1
    later = eventually(
        lambda: (s := show(daemon, "hit"))["frames"]["captured"] > before["frames"]["captured"] + 5 and s
    )
    assert accounted(later["frames"])
    gone(daemon, "hit")
    status, models = daemon.json("GET", "/v2/models/digit-scenes/ready")
    assert status == 200, models


def test_counters_that_are_read_while_they_rise_add_up() -> None:
    shared = Shared.create("busy", 1)
    finished = threading.Event()

    def work() -> None:
        for number in range(20_000):
            shared.add(Count.CAPTURED)
            shared.add(Count.INFERRED if number % 3 else Count.DROPPED_BUSY)
        finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not finished.is_set():
        frames = shared.frames()
        assert frames[Count.CAPTURED] >= frames[Count.INFERRED] + frames[Count.DROPPED_BUSY]
    thread.join()
    assert shared.under_way() == 0
    shared.close()


def test_nothing_of_a_removed_stream_stays(daemon: Running, video: Any) -> None:
    put(daemon, "short", source=str(video), stage=TRACKED, share=0.01)
    pid = eventually(lambda: show(daemon, "short")["pid"])
    reaches(daemon, "short", "running")
    gone(daemon, "short")
    metrics = daemon.http("GET", "/metrics")[2].decode()
    assert re.findall(r'edgeai_slots_in_use\{model="digit-scenes",[^}]*\} (\d+)', metrics) == ["0"]
    assert not Path(f"/proc/{pid}").exists()
    members = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == pid]
    assert members == []
    assert daemon.json("GET", "/edgeai/v1/streams/short")[0] == 404


def _group(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except (OSError, IndexError, ValueError):
        return -1


def test_streams_are_there_again_after_a_restart_and_stopped_ones_stay_stopped(start: Callable[..., Running]) -> None:
    first = start()
    put(first, "one", source="test:digits", fps=5, stage=TRACKED)
    put(first, "two", source="test:digits", fps=5, stage=TRACKED)
    first.json("POST", "/edgeai/v1/streams/two/stop")
    assert first.stop() == 0, first.log.read_text()
    first.start()
    reaches(first, "one", "running")
    assert show(first, "two")["state"] == "stopped"
    first.json("POST", "/edgeai/v1/streams/two/start")
    reaches(first, "two", "running")
    assert first.stop() == 0, first.log.read_text()


def test_files_of_tables_are_read_and_a_wrong_one_is_reported_with_its_line(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    tables = tmp_path / "streams.d"
    tables.mkdir()
    (tables / "a.toml").write_text('[stream.a]\nsource = "test:digits"\nfps = 5\n')
    (tables / "b.toml").write_text('[stream.b]\nsource = "test:digits"\n\n[[stream.b.stage]]\ndetect = 5\n')
    daemon = start(f'[streams]\ndirectory = "{tables}"\n')
    reaches(daemon, "a", "running")
    assert "b.toml, line 5: stream.b.stage[0].detect" in daemon.log.read_text()
    (tables / "a.toml").write_text('[stream.a]\nsource = "test:digits"\nfps = "many"\n')
    pid = show(daemon, "a")["pid"]
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "a.toml, line 3: stream.a.fps" in daemon.log.read_text())
    assert show(daemon, "a")["pid"] == pid
    status, answer = daemon.json("PUT", "/edgeai/v1/streams/a", {"source": "test:digits"})
    assert status == 409 or "a.toml" in answer["error"]


def test_a_table_may_be_sent_as_toml(daemon: Running) -> None:
    text = '[stream.toml]\nsource = "test:pattern"\nfps = 5\n[[stream.toml.stage]]\nmotion = {}\n'
    headers = {"Content-Type": "application/toml"}
    status, _, data = daemon.http("PUT", "/edgeai/v1/streams/toml", text.encode(), headers)
    assert status == 201, data
    status, _, data = daemon.http(
        "PUT", "/edgeai/v1/streams/toml", text.replace("fps = 5", "fps = [").encode(), headers
    )
    assert status == 400
    assert b"line 4" in data
    gone(daemon, "toml")


def test_passwords_are_in_no_answer_and_in_no_log(start: Callable[..., Running]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        daemon = start()
        source = f"rtsp://admin:hunter2@127.0.0.1:{port}/live?token=sesame"
        put(daemon, "cam", source=source, webhook=[{"url": "http://u:swordfish@127.0.0.1:9/"}])
        shown = reaches(daemon, "cam", "no-signal")
    assert "refuses connections" in shown["reason"]
    assert shown["table"]["source"] == f"rtsp://***@127.0.0.1:{port}/live?token=***"
    with Client(daemon.socket, fast=False) as client:
        told = [next(Streams(client).events("cam", types=("state",))), next(client.events())]
    everything = json.dumps([shown, told, daemon.json("GET", "/edgeai/v1/streams")])
    assert daemon.stop() == 0
    for secret in ("hunter2", "sesame", "swordfish", "admin"):
        assert secret not in everything
        assert secret not in daemon.log.read_text()
    state = daemon.directory / "state" / "streams" / "tables" / "cam.json"
    assert state.stat().st_mode & 0o077 == 0


def test_the_newest_frame_is_a_jpeg_of_the_wanted_size_with_its_number(daemon: Running) -> None:
    put(daemon, "view", source="test:digits?width=384&height=256", fps=10, stage=TRACKED)
    reaches(daemon, "view", "running")
    eventually(lambda: daemon.http("GET", "/edgeai/v1/streams/view/frame")[0] == 200)
    status, headers, data = daemon.http("GET", "/edgeai/v1/streams/view/frame?boxes=1&width=192")
    with Image.open(io.BytesIO(data)) as picture:
        assert (status, picture.format, picture.size) == (200, "JPEG", (192, 128))
    assert int(headers["x-edgeai-frame"]) > 0
    assert daemon.http("GET", "/edgeai/v1/streams/view/frame?width=wide")[0] == 400
    gone(daemon, "view")


def test_frames_without_end_carry_their_numbers(daemon: Running) -> None:
    put(daemon, "view", source="test:digits", fps=10, stage=TRACKED)
    eventually(lambda: daemon.http("GET", "/edgeai/v1/streams/view/frame")[0] == 200)
    with daemon.raw() as sock:
        sock.sendall(b"GET /edgeai/v1/streams/view/mjpeg?fps=20 HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while data.count(b"--edgeai-frame\r\n") < 3:
            data += sock.recv(65536)
    numbers = [int(n) for n in re.findall(rb"X-Edgeai-Frame: (\d+)", data)]
    assert numbers == sorted(set(numbers))
    gone(daemon, "view")


def test_a_websocket_sends_each_result_and_then_its_picture(daemon: Running) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    put(daemon, "view", source="test:digits", fps=10, stage=TRACKED)
    eventually(lambda: daemon.http("GET", "/edgeai/v1/streams/view/frame")[0] == 200)

    async def ask() -> tuple[str, bytes]:
        connector = aiohttp.UnixConnector(str(daemon.socket))
        path = "http://x/edgeai/v1/streams/view/websocket?fps=20"
        async with aiohttp.ClientSession(connector=connector) as session, session.ws_connect(path) as ws:
            return await ws.receive_str(timeout=30), await ws.receive_bytes(timeout=30)

    text, picture = asyncio.run(ask())
    assert json.loads(text)["frame"] <= json.loads(text)["picture"]
    assert picture[:2] == b"\xff\xd8"
    gone(daemon, "view")


def test_snapshots_and_the_journal_stay_on_disk_and_webhooks_are_called(
    start: Callable[..., Running], frames_of_digits: Any
) -> None:
    called: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            called.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503 if len(called) == 1 else 204)  # the first one is tried again
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    daemon = start()
    put(
        daemon, "keep", source=str(frames_of_digits), stage=TRACKED, events={"snapshot": True},
        keep={"journal_mb": 1}, webhook=[{"url": f"http://127.0.0.1:{server.server_port}/", "types": ["new", "end"]}],
    )  # fmt: skip
    reaches(daemon, "keep", "ended")
    eventually(lambda: len(called) >= 7)
    server.shutdown()
    kinds = [c["type"] for c in called[1:]]
    assert kinds.count("new") == kinds.count("end") >= 3
    names = daemon.json("GET", "/edgeai/v1/streams/keep/snapshots")[1]["snapshots"]
    assert len(names) == kinds.count("new")
    assert daemon.http("GET", f"/edgeai/v1/streams/keep/snapshots/{names[0]}")[2][:2] == b"\xff\xd8"
    assert daemon.http("GET", "/edgeai/v1/streams/keep/snapshots/..%2fevents.jsonl")[0] == 404
    lines = (daemon.directory / "state" / "streams" / "data" / "keep" / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["type"] for line in lines} >= {"new", "end"}


def test_who_listens_goes_on_listening_when_the_table_changes_and_is_told_of_the_end(
    daemon: Running, frames_of_digits: Any
) -> None:
    put(daemon, "change", source="test:digits", fps=5, stage=TRACKED)
    reaches(daemon, "change", "running")
    with Client(daemon.socket, fast=False) as client:
        following = Streams(client).events("change", types=("state",))
        assert next(following)["state"] == "starting"
        put(daemon, "change", source=str(frames_of_digits), stage=TRACKED)
        states = []
        for event in following:
            states.append(event["state"])
            if event["state"] == "ended":
                gone(daemon, "change")
    assert states == ["running", "stopped", "starting", "running", "ended", "stopped"]


@pytest.mark.parametrize("line", ["[" + " " * 60_000, "[a" + " " * 60_000 + "b", "[[" * 30_000, "a" + " . a" * 15_000])
def test_a_long_line_in_a_table_costs_no_more_than_its_length(line: str) -> None:
    assert lines_of(f"[stream.a]\n{line}\n[stream.b]\nfps = 3\n")["stream", "b", "fps"] == 4


PORCH = '[stream.porch]\nsource = "test:pattern"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PORCH + "fsp = 3\n", ", line 3: stream.porch.fsp: "),
        (
            PORCH + "\n[[stream.porch.stage]]\ndetect = 'nobody'\n",
            ", line 5: stream.porch.stage[0].detect: there is no",
        ),
        ("[stream.porch]\nfps = 3\nsource = 'gopher://u:hunter2@camera'\n", ", line 3: stream.porch.source: "),
        (PORCH + "fps = 3 3\n", ": Expected newline or end of document after a statement (at line 3"),
        ("[stream.lawn]\nsource = 'test:pattern'\n", ": the table must have exactly [stream.porch]"),
        ("# " + "x" * (5 << 20), ": "),
        (b"[stream.porch]\nsource = '/\xff'\n", ": 'utf-8' codec"),
    ],
    ids=["unknown key", "no such model", "scheme", "syntax", "another name", "too large", "not UTF-8"],
)
def test_a_table_that_is_refused_is_named_with_its_file_and_line(
    daemon: Running, tmp_path: Path, text: str | bytes, said: str
) -> None:
    file = tmp_path / "door of the house.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    words = ["--socket", str(daemon.socket), "stream", "add", "porch", "--table", str(file)]
    done = CliRunner().invoke(main, words, prog_name="edgeai")
    assert done.exit_code == 65, done.output
    assert f"{file}{said}" in done.output
    assert "hunter2" not in done.output
    assert daemon.json("GET", "/edgeai/v1/streams/porch")[0] == 404


@pytest.mark.parametrize("last", ["", "-", "nonsense", "0-1", "RUN-", "RUN-x", "RUN-" + "9" * 6000, "RUN-٣"])
def test_any_number_of_a_last_event_is_taken(last: str) -> None:
    feed = Feed()
    for number in range(3):
        feed.publish("event", {"number": number})
    run = feed.ring[0].identity.partition("-")[0]
    assert len(feed.after(last.replace("RUN", run))) == (0 if "٣" in last else 3)
