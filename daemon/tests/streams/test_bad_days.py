"""Bad days of a daemon with streams: full disks, killed workers, exchanged models, pulled sticks, many cameras."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgeaid.client import Client
from edgeaid.client.streams import Streams
from edgeaid.models.repository import EMBEDDED
from tests.serving.accelerators.conftest import edge_daemon, edgetpu_library
from tests.support.daemon import Running
from tests.support.streams import TRACKED, accounted, gone, put, reaches, show
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow  # each has a daemon of its own
__all__ = ["edge_daemon", "edgetpu_library"]

DIGITS = "test:digits?width=384&height=384"


def inferred(daemon: Running, name: str) -> int:
    return int(show(daemon, name)["frames"]["inferred"])


def goes_on(daemon: Running, name: str, frames: int = 5) -> dict[str, Any]:
    """Wait until more frames were inferred; what the daemon says of the stream then."""
    before = inferred(daemon, name)
    eventually(lambda: inferred(daemon, name) >= before + frames)
    return show(daemon, name)


def test_a_full_disk_costs_events_on_disk_and_nothing_else(
    start: Callable[..., Running], frames_of_digits: Path
) -> None:
    daemon = start()
    directory = daemon.directory / "state" / "streams" / "data" / "full"
    directory.mkdir(parents=True)
    (directory / "events.jsonl").symlink_to("/dev/full")
    (directory / "snapshots").symlink_to("/dev/full")
    put(daemon, "full", source=str(frames_of_digits), stage=TRACKED, keep={"journal_mb": 1}, events={"snapshot": True})
    shown = reaches(daemon, "full", "ended")
    assert shown["frames"]["inferred"] == 40
    assert shown["lost"]["files"] >= 6
    with Client(daemon.socket, fast=False) as client:
        following = Streams(client).events("full", types=("new",))
        assert {next(following)["label"] for _ in range(3)} == {"2", "5", "7"}
    complaints = [line for line in daemon.log.read_text().splitlines() if "cannot write events" in line]
    assert len(complaints) == 1


def test_frames_are_inferred_again_after_a_worker_was_killed(start: Callable[..., Running]) -> None:
    daemon = start()
    put(daemon, "hit", source=DIGITS, fps=20, stage=TRACKED)
    before = goes_on(daemon, "hit")
    os.kill(daemon.worker(), signal.SIGKILL)
    eventually(lambda: _restarts(daemon) >= 1)
    after = goes_on(daemon, "hit")
    assert after["pid"] == before["pid"]
    assert after["restarts"] == 0
    assert after["reason"] == ""
    daemon.json("POST", "/edgeai/v1/streams/hit/stop")
    assert accounted(show(daemon, "hit")["frames"])


def _restarts(daemon: Running) -> int:
    with daemon.client() as client:
        return int(next(d["restarts"] for d in client.devices() if d["id"] == "cpu0"))


def test_a_model_may_be_exchanged_while_a_stream_uses_it(start: Callable[..., Running]) -> None:
    daemon = start()
    put(daemon, "swap", source=DIGITS, fps=20, stage=TRACKED)
    before = goes_on(daemon, "swap")
    for _ in range(3):
        status, _, data = daemon.http("POST", "/v2/repository/models/digit-scenes/load", b"{}")
        assert status == 200, data
        after = goes_on(daemon, "swap")
    shutil.copytree(EMBEDDED / "digit-scenes" / "1", daemon.repository / "digit-scenes" / "2")
    assert daemon.http("POST", "/v2/repository/models/digit-scenes/load", b"{}")[0] == 200
    after = goes_on(daemon, "swap")
    stats = daemon.json("GET", "/v2/models/digit-scenes/versions/2/stats")[1]["model_stats"][0]
    assert stats["inference_count"] > 0
    assert after["pid"] == before["pid"]
    status, _, data = daemon.http("POST", "/v2/repository/models/digit-scenes/unload", b"{}")
    assert status == 200, data
    shown = eventually(lambda: (s := show(daemon, "swap"))["frames"]["dropped"]["unavailable"] > 3 and s)
    assert shown["state"] == "running"
    assert "digit-scenes" in shown["reason"]
    assert daemon.http("POST", "/v2/repository/models/digit-scenes/load", b"{}")[0] == 200
    assert goes_on(daemon, "swap")["reason"] == ""
    daemon.json("POST", "/edgeai/v1/streams/swap/stop")
    assert accounted(show(daemon, "swap")["frames"])


def test_when_the_stick_is_pulled_the_cpu_takes_over_and_the_stream_says_so(
    edge_daemon: Callable[..., tuple[Any, Any]],
) -> None:
    embed = "mobilenet_v1_1.0_224_quant_embedding_extractor"
    daemon, control = edge_daemon([("embed", f"{embed}.tflite", f"{embed}_edgetpu.tflite")])
    manifest = daemon.repository / "embed" / "1" / "model.toml"
    manifest.write_text(manifest.read_text() + '[input]\nresize = "stretch"\nmean = [0.0]\nstd = [1.0]\n')
    assert daemon.http("POST", "/v2/repository/models/embed/load", b"{}")[0] == 200
    put(daemon, "pull", source=DIGITS, fps=5, stage=[{"embed": "embed"}])
    eventually(lambda: show(daemon, "pull")["models"]["embed"] == "tpu0")
    control("vanish")
    eventually(lambda: show(daemon, "pull")["models"]["embed"] == "cpu0")
    goes_on(daemon, "pull", 3)
    with Client(daemon.socket, fast=False) as client:
        event = next(Streams(client).events("pull", types=("device",)))
    assert (event["model"], event["before"], event["device"]) == ("embed", "tpu0", "cpu0")
    assert accounted(show(daemon, "pull")["frames"])


def has_inferred(daemon: Running, name: str, count: int) -> bool:
    return bool(inferred(daemon, name) > count)


def test_sixteen_streams_run_side_by_side_and_the_seventeenth_is_refused(start: Callable[..., Running]) -> None:
    daemon = start("[streams]\nlimit = 16\n")
    names = [f"s{number}" for number in range(16)]
    for name in names:
        put(daemon, name, source=DIGITS, fps=2, stage=TRACKED)
    status, answer = daemon.json("PUT", "/edgeai/v1/streams/more", {"source": DIGITS})
    assert (status, "16 streams already" in answer["error"]) == (400, True) or status == 413, answer
    for name in names:
        eventually(partial(has_inferred, daemon, name, 5), 120)
    for name in names:
        assert accounted(show(daemon, name)["frames"]), json.dumps(show(daemon, name))
        gone(daemon, name)


def test_a_webhooks_password_is_sent_and_never_said_and_nonsense_does_not_end_it(start: Callable[..., Running]) -> None:
    told: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for number in range(50):
            try:
                connection, _ = server.accept()
            except OSError:
                return
            told.append(connection.recv(65536))
            connection.sendall(b"not HTTP at all\r\n\r\n" if number == 0 else b"HTTP/1.1 204 Well\r\n\r\n")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    daemon = start()
    url = f"http://u:sword%40fish@127.0.0.1:{server.getsockname()[1]}/hook"
    put(daemon, "hooked", source="test:digits?width=384&height=384", fps=10, stage=TRACKED, webhook=[{"url": url}])
    eventually(lambda: len(told) > 2)
    assert all(b"Authorization: Basic dTpzd29yZEBmaXNo" in request for request in told if request)
    assert daemon.stop() == 0
    server.close()
    said = daemon.log.read_text()
    assert "sword" not in said
    assert "Traceback" not in said


def test_a_stream_whose_directory_cannot_be_made_runs_and_counts_what_it_cannot_write(
    start: Callable[..., Running],
) -> None:
    daemon = start()
    state = daemon.directory / "state" / "streams"
    state.mkdir(parents=True, exist_ok=True)
    (state / "data").write_text("not a directory")
    stages = [{"detect": "digit-scenes"}, {"track": {}}]
    put(daemon, "here", source="test:digits?width=384&height=384", fps=10, stage=stages, events={"snapshot": True})
    eventually(lambda: show(daemon, "here")["lost"]["files"] > 0)
    assert show(daemon, "here")["state"] == "running"
    assert daemon.stop() == 0
