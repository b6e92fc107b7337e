"""Capture on bad days: cameras that go, stall, freeze, send garbage or change their size, as real servers do."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from edgeaid.streams.memory import Count, Shared, frame_bytes
from edgeaid.streams.process import requests
from edgeaid.streams.process.capture import Capture
from edgeaid.streams.process.frames import Frame, Ring
from edgeaid.streams.process.pictures import Noise
from edgeaid.streams.sources import plain, redacted, understand
from edgeaid.streams.states import State
from edgeaid.streams.table import from_table
from tests.support.landlock import landlock_version
from tests.support.waiting import eventually


class Taken:
    """A capture whose frames are looked at and let go at once."""

    def __init__(self, **table: object) -> None:
        self.stream = from_table("s", table)
        self.shared = Shared.create("test", frame_bytes(self.stream.size))
        self.ring = Ring(self.shared)
        self.frames: list[Frame] = []
        self.states: list[tuple[State, str]] = []
        self.capture = Capture(
            self.stream, self.ring, self._frame, lambda s, r: self.states.append((s, r)), lambda: None
        )
        self.capture.start()

    def _frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.ring.release(frame.slot)

    @property
    def state(self) -> State | None:
        """The newest one."""
        return self.states[-1][0] if self.states else None

    def close(self) -> None:
        """End it."""
        self.capture.halt()
        self.capture.join(5)
        assert not self.capture.is_alive()


@pytest.fixture
def take() -> Iterator[Callable[..., Taken]]:
    taken: list[Taken] = []

    def make(**table: object) -> Taken:
        taken.append(Taken(**table))
        return taken[-1]

    yield make
    for one in taken:
        one.close()


def jpeg(width: int, height: int, number: int) -> bytes:
    buffer = io.BytesIO()
    Noise(width, height).frame(number).save(buffer, "JPEG")
    return buffer.getvalue()


class Camera:
    """An MJPEG camera that does what `answer` says with each connection."""

    def __init__(self, answer: Callable[[socket.socket], None], port: int = 0) -> None:
        self.answer = answer
        self.sock = socket.create_server(("127.0.0.1", port))
        self.port = self.sock.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            self.open.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            if not connection.recv(4096).strip():
                return
            self.answer(connection)
        except OSError:
            return

    def unplug(self) -> None:
        """It is gone, with all its connections."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for connection in self.open:
            connection.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/video"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"


def part(data: bytes, *, length: bool = True) -> bytes:
    said = f"Content-Length: {len(data)}\r\n".encode() if length else b""
    return b"--cut\r\nContent-Type: image/jpeg\r\n" + said + b"\r\n" + data + b"\r\n"


def lively(connection: socket.socket, *, length: bool = True, size: tuple[int, int] = (64, 48)) -> None:
    connection.sendall(HEAD)
    for number in range(1000):
        connection.sendall(part(jpeg(*size, number), length=length))
        time.sleep(0.02)


@pytest.mark.parametrize("length", [True, False])
def test_mjpeg_is_read_with_and_without_lengths(take: Callable[..., Taken], length: bool) -> None:
    camera = Camera(lambda c: lively(c, length=length))
    taken = take(source=camera.url)
    eventually(lambda: len(taken.frames) > 10)
    assert taken.states == [(State.STARTING, ""), (State.RUNNING, "")]
    assert [f.number for f in taken.frames[:10]] == list(range(1, 11))
    assert (taken.frames[0].width, taken.frames[0].height) == (64, 48)


def test_a_camera_that_is_pulled_is_seen_again_within_five_seconds_of_its_return(take: Callable[..., Taken]) -> None:
    camera = Camera(lively)
    taken = take(source=camera.url)
    eventually(lambda: taken.state is State.RUNNING)
    camera.unplug()
    eventually(lambda: taken.state is State.NO_SIGNAL)
    eventually(lambda: "refuses connections" in taken.states[-1][1])
    starting = Camera(lambda connection: connection.close(), camera.port)  # takes connections, and shows nothing yet
    eventually(lambda: len(starting.open) > 2)
    starting.unplug()
    back = Camera(lively, camera.port)
    eventually(lambda: taken.state is State.RUNNING, 5)
    back.unplug()


def test_a_picture_that_stands_still_for_too_long_is_no_signal(take: Callable[..., Taken]) -> None:
    same = jpeg(64, 48, 1)

    def frozen(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        while True:
            connection.sendall(part(same))
            time.sleep(0.02)

    taken = take(source=Camera(frozen).url, frozen_s=0.5)
    eventually(lambda: taken.state is State.NO_SIGNAL)
    assert "has not changed for 0.5 s" in taken.states[-1][1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "refuses the user or password"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "does not know this path"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", "answers text/html"),
        (HEAD + part(b"\xff\xd8 no picture"), "no picture that can be read"),
        (b"\x00\x01garbage\r\n\r\n", "connection failed"),
        (HEAD + b"--cut\r\nContent-Length: 999999999\r\n\r\n", "a picture of more than"),
    ],
)
def test_what_is_wrong_with_a_camera_is_said_in_plain_words(
    take: Callable[..., Taken], answer: Any, reason: str
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.close()

    taken = take(source=Camera(serve).url)
    eventually(lambda: taken.state is State.NO_SIGNAL)
    assert reason in taken.states[-1][1]


def trickle(connection: socket.socket) -> None:
    for byte in HEAD + part(jpeg(64, 48, 1)):
        connection.sendall(bytes([byte]))
        time.sleep(0.01)


def endless_line(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"--cut\r\nX: ")
    while True:
        connection.sendall(b"a" * 4096)


def other_boundary(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    while True:
        connection.sendall(part(jpeg(64, 48, 1)).replace(b"--cut", b"--other"))
        time.sleep(0.02)


def trickling_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.01)


@pytest.mark.parametrize("camera", [trickle, endless_line, other_boundary, trickling_head])
def test_a_camera_that_sends_without_end_and_never_a_picture_has_no_signal(
    take: Callable[..., Taken], camera: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "PICTURE_SECONDS", 0.3)
    taken = take(source=Camera(camera).url)
    eventually(lambda: State.NO_SIGNAL in [s for s, _ in taken.states])
    assert not taken.frames
    reason = next(r for s, r in taken.states if s is State.NO_SIGNAL)
    assert "no picture" in reason or "does not answer" in reason


def test_a_camera_may_change_its_size(take: Callable[..., Taken]) -> None:
    def changing(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for number in range(1000):
            connection.sendall(part(jpeg(64 + 16 * (number % 3), 48, number)))
            time.sleep(0.02)

    taken = take(source=Camera(changing).url, size=80)
    eventually(lambda: len(taken.frames) > 6)
    assert {f.width for f in taken.frames} == {64, 80}
    assert all(f.width * f.height * 3 <= taken.shared.frame_bytes for f in taken.frames)


def test_a_host_that_is_not_there_is_said_to_be_so(take: Callable[..., Taken]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        taken = take(source=f"rtsp://user:secret@127.0.0.1:{closed.getsockname()[1]}/live")
        eventually(lambda: taken.state is State.NO_SIGNAL)
    assert "refuses connections" in taken.states[-1][1]
    assert "secret" not in str(taken.states)


def test_an_rtsp_server_that_stalls_in_the_handshake_is_left_and_tried_again(
    take: Callable[..., Taken], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("GStreamer (gst-launch-1.0) is not installed")
    monkeypatch.setattr("edgeaid.streams.process.capture.START_SECONDS", 1.5)
    camera = Camera(lambda _c: time.sleep(60))
    taken = take(source=f"rtsp://127.0.0.1:{camera.port}/live", reader="gstreamer")
    eventually(lambda: taken.state is State.NO_SIGNAL)
    assert "shows no picture for 1.5 s" in taken.states[-1][1]
    eventually(lambda: taken.shared.get(Count.CONNECTIONS) >= 2)


@pytest.mark.parametrize("reader", ["gstreamer", "ffmpeg"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no video at all\n" * 100, "it is not a video that can be read"), (b"", "it is not a video that can be read"),
     (None, "it does not exist")],
)  # fmt: skip
def test_a_file_that_is_no_video_has_failed_and_is_not_tried_again(
    take: Callable[..., Taken], tmp_path: Path, content: Any, reason: str, reader: str
) -> None:
    if shutil.which({"gstreamer": "gst-launch-1.0", "ffmpeg": "ffmpeg"}[reader]) is None:
        pytest.skip(f"{reader} is not installed")
    file = tmp_path / "video.mp4"
    if content is not None:
        file.write_bytes(content)
    taken = take(source=str(file), reader=reader)
    eventually(lambda: taken.state is State.FAILED)
    assert taken.states[-1][1] == f"{file}: {reason}"
    assert taken.shared.get(Count.CONNECTIONS) == 1


def test_a_reader_that_has_said_its_error_and_does_not_end_is_ended(
    take: Callable[..., Taken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # gst-launch-1.0 deadlocks now and then while it stops its elements; here it always does.
    programs = tmp_path / "programs"
    programs.mkdir()
    hanging = programs / "gst-launch-1.0"
    hanging.write_text("#!/bin/sh\necho 'ERROR: from element /x: Stream contains no data.' >&2\nexec sleep 300\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("edgeaid.streams.process.capture.REPORTED_SECONDS", 0.2)
    file = tmp_path / "video.mp4"
    file.touch()
    taken = take(source=str(file), reader="gstreamer")
    eventually(lambda: taken.state is State.FAILED, 30)
    assert "it is not a video that can be read" in taken.states[-1][1]


@pytest.mark.slow
def test_a_real_rtsp_camera_is_read_and_is_back_within_five_seconds_after_its_power_was_cut(
    take: Callable[..., Taken],
) -> None:
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("GStreamer (gst-launch-1.0) is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = rtsp_server(port)
    try:
        taken = take(source=f"rtsp://127.0.0.1:{port}/test", size=160)
        eventually(lambda: len(taken.frames) > 20)
        server.kill()
        server.wait()
        eventually(lambda: taken.state is State.NO_SIGNAL)
        server = rtsp_server(port)
        eventually(lambda: taken.state is State.RUNNING, 5)
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["gstreamer", "ffmpeg"])
def test_a_cameras_password_is_in_no_arguments_of_a_process(take: Callable[..., Taken], reader: str) -> None:
    if shutil.which({"gstreamer": "gst-launch-1.0", "ffmpeg": "ffmpeg"}[reader]) is None:
        pytest.skip(f"{reader} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = rtsp_server(port, "admin", "hunter2")
    try:
        wrong = take(source=f"rtsp://admin:xyzzy@127.0.0.1:{port}/test", reader=reader)
        eventually(lambda: wrong.state is State.NO_SIGNAL)
        assert wrong.states[-1][1] == "the camera refuses the user or password"
        wrong.capture.halt()
        taken = take(source=f"rtsp://admin:hunter2@127.0.0.1:{port}/test", size=160, reader=reader)
        eventually(lambda: len(taken.frames) > 10)
        for process in descendants(os.getpid()):
            if process != server.pid:
                assert b"hunter2" not in Path(f"/proc/{process}/cmdline").read_bytes()
    finally:
        server.kill()
        server.wait()


def descendants(pid: int) -> Iterator[int]:
    """All processes below one."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def test_what_reads_a_source_is_shut_in(
    take: Callable[..., Taken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the place of GStreamer: a program that tells what it may do.
    secret = tmp_path / "state" / "secret"
    secret.parent.mkdir()
    secret.write_text("key")
    video = tmp_path / "video.mp4"
    video.write_bytes(b"frames")
    programs = tmp_path / "programs"
    programs.mkdir()
    spy = programs / "gst-launch-1.0"
    spy.write_text(
        "#!/bin/sh\n"
        f"cat {video} >/dev/null && say=$say-video\n"
        f"cat {secret} >/dev/null 2>&1 && say=$say-secret\n"
        f"(echo x > {tmp_path}/written) 2>/dev/null && say=$say-written\n"
        f"kill -0 {os.getpid()} 2>/dev/null && say=$say-signals\n"
        'echo "ERROR: it can$say" >&2\n'
    )
    spy.chmod(0o755)
    if landlock_version() < 6:
        pytest.skip("this kernel's Landlock has no scopes (Linux 6.12)")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    taken = take(source=str(video), reader="gstreamer")
    eventually(lambda: taken.state is State.FAILED)
    assert taken.states[-1][1].endswith("ERROR: it can-video")


def rtsp_server(port: int, *account: str) -> subprocess.Popen[bytes]:
    """A server of a test picture at /test, by the system's Python, which has GStreamer's bindings."""
    script = Path(__file__).with_name("rtsp_server.py")
    server = subprocess.Popen(["/usr/bin/python3", script, str(port), *account], stdout=subprocess.PIPE)
    assert server.stdout is not None
    if server.stdout.readline() != b"ready\n":
        pytest.skip("the system's Python has no GStreamer RTSP server (gir1.2-gst-rtsp-server-1.0, python3-gi)")
    return server


def made(file: Path, *words: str) -> Path:
    """A file that ffmpeg makes of its own test pictures or sounds."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed; the file is made with it")
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", *words, file], check=True)
    return file


@pytest.mark.parametrize(("reader", "program"), [("gstreamer", "gst-launch-1.0"), ("ffmpeg", "ffmpeg")])
def test_pixels_that_are_not_square_become_square(
    take: Callable[..., Taken], tmp_path: Path, reader: str, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    file = made(tmp_path / "wide.mkv", "testsrc=size=64x48:rate=10:duration=1", "-vf", "setsar=2/1", "-c:v", "mjpeg")
    taken = take(source=str(file), reader=reader)
    eventually(lambda: taken.state is State.ENDED)
    assert taken.capture.size == (128, 48)


@pytest.mark.parametrize(("reader", "program"), [("gstreamer", "gst-launch-1.0"), ("ffmpeg", "ffmpeg")])
def test_a_file_with_sound_only_is_said_to_be_that(
    take: Callable[..., Taken], tmp_path: Path, reader: str, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    file = made(tmp_path / "sound.mkv", "sine=duration=1", "-c:a", "pcm_s16le")
    taken = take(source=str(file), reader=reader)
    eventually(lambda: taken.state is State.FAILED)
    assert taken.states[-1][1].endswith("it has no video, only sound or other data")


def test_damaged_pictures_of_a_directory_are_left_out(take: Callable[..., Taken], tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"damaged")
    taken = take(source=str(tmp_path))
    eventually(lambda: taken.state is State.ENDED)
    assert len(taken.frames) == 3


def moving(file: Path, count: int, **options: Any) -> Path:
    """A file of pictures that move."""
    made_up = [Noise(40, 30).frame(n) for n in range(count)]
    made_up[0].save(file, save_all=count > 1, append_images=made_up[1:], **options)
    return file


@pytest.mark.parametrize("name", ["loop.gif", "moving.png", "moving.webp", "called a video.mp4"])
def test_pictures_that_move_are_worked_through_once_at_their_own_speed(
    take: Callable[..., Taken], tmp_path: Path, name: str
) -> None:
    kind = "GIF" if name.endswith("mp4") else None
    file = moving(tmp_path / name, 6, duration=200, loop=0, format=kind)
    taken = take(source=str(file), fps=10)
    eventually(lambda: taken.state is State.ENDED)
    assert len(taken.frames) == 12
    assert taken.capture.size == (40, 30)


@pytest.mark.parametrize("name", ["one.gif", "one.png", "one.webp", "one.jpg"])
def test_a_single_picture_is_a_film_of_one_frame(take: Callable[..., Taken], tmp_path: Path, name: str) -> None:
    taken = take(source=f"file://{moving(tmp_path / name, 1)}")
    eventually(lambda: taken.state is State.ENDED)
    assert len(taken.frames) == 1


def test_a_damaged_animation_ends_with_its_name_after_the_pictures_that_it_has(
    take: Callable[..., Taken], tmp_path: Path
) -> None:
    file = moving(tmp_path / "cut.gif", 8)
    file.write_bytes(file.read_bytes()[:-4000])
    taken = take(source=str(file))
    eventually(lambda: taken.state is State.FAILED)
    assert taken.states[-1][1].startswith(f"{file}: ")
    assert 0 < len(taken.frames) < 8


class Guarded(BaseHTTPRequestHandler):
    """A camera that asks for a password as it likes, and knows its picture under another address."""

    scheme = "Digest"
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Challenge, redirect or picture."""
        told = self.headers.get("Authorization", "")
        self.seen.append(f"{self.path} {told}")
        if self.path.startswith("/old"):
            self.send_response(302)
            self.send_header("Location", "../new/still.jpg?camera=1")
            self.end_headers()
        elif not self.right(told):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="gate"')
            if self.scheme == "Digest":
                self.send_header(
                    "WWW-Authenticate", f'Digest realm="a, b", qop="auth", nonce="{len(self.seen)}", stale=true'
                )
            self.end_headers()
        else:
            data = jpeg(64, 48, len(self.seen))
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def right(self, told: str) -> bool:
        """Whether the answer to the challenge is that of u and p:w (RFC 7616, or Basic)."""
        if self.scheme == "Basic":
            return told == "Basic dTpwOnc="
        values = dict(re.findall(r'(\w+)="?([^",]*)"?', told.replace("a, b", "ab")))
        if not told.startswith("Digest ") or values["uri"] != self.path:
            return False

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        middle = f"{values['nonce']}:{values['nc']}:{values['cnonce']}:auth"
        return bool(values["response"] == md5(f"{md5('u:a, b:p:w')}:{middle}:{md5('GET:' + self.path)}"))

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.mark.parametrize("scheme", ["Digest", "Basic"])
def test_a_camera_gets_the_password_in_the_way_that_it_asks_for_and_may_point_elsewhere(
    take: Callable[..., Taken], scheme: str
) -> None:
    seen: list[str] = []
    handler = type("Handler", (Guarded,), {"scheme": scheme, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{server.server_port}/old/still.jpg"
    taken = take(source=f"http://u:p%3Aw@{place}", fps=50)
    eventually(lambda: len(taken.frames) > 3)
    assert scheme == "Basic" or not any("Basic" in line for line in seen)
    wrong = take(source=f"http://u:other@{place}")
    eventually(lambda: wrong.state is State.NO_SIGNAL)
    assert wrong.states[-1][1] == "the camera refuses the user or password"
    server.shutdown()
    server.server_close()


def test_the_password_of_a_camera_is_told_to_no_other_host(take: Callable[..., Taken]) -> None:
    asked: list[bytes] = []
    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]

    def listen() -> None:
        connection, _ = other.accept()
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    threading.Thread(target=listen, daemon=True).start()
    head = f"HTTP/1.1 302 There\r\nLocation: http://evil@127.0.0.1:{port}/still.jpg\r\nContent-Length: 0\r\n\r\n"
    camera = Camera(lambda c: c.sendall(head.encode()))
    taken = take(source=f"http://u:hunter2@127.0.0.1:{camera.port}/still.jpg")
    eventually(lambda: taken.state is State.NO_SIGNAL)
    assert taken.states[-1][1] == "the camera refuses the user or password"
    assert len(asked) == 1
    assert b"authorization" not in asked[0].lower()
    other.close()
    camera.unplug()


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        (";boundary=--video boundary--", "--video boundary--"),
        ('; boundary="gc0p4Jq0M2Yt08jU534c0p"', "--gc0p4Jq0M2Yt08jU534c0p"),
        ("; boundary=ipcamera", "ipcamera"),
        ("; boundary=--ipcamera", "----ipcamera"),
        ("", "--whatever"),
    ],
)
@pytest.mark.parametrize("length", [True, False])
def test_cameras_may_write_their_boundary_in_their_own_way(
    take: Callable[..., Taken], said: str, mark: str, length: bool
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.0 200 OK\r\nContent-type: Multipart/X-Mixed-Replace{said}\r\n\r\n".encode())
        for number in range(1000):
            connection.sendall(part(jpeg(64, 48, number), length=length).replace(b"--cut", mark.encode(), 1))
            time.sleep(0.02)

    camera = Camera(answer)
    taken = take(source=camera.url)
    eventually(lambda: len(taken.frames) > 5)
    camera.unplug()


def answering(data: bytes, connection: socket.socket) -> None:
    connection.sendall(data)


def has_no_signal(taken: Taken) -> bool:
    return taken.state is State.NO_SIGNAL


def test_a_camera_that_points_to_itself_or_nowhere_has_no_signal(take: Callable[..., Taken]) -> None:
    for place, reason in (("/again.jpg", "without end"), ("file:///etc/passwd", "not http"), ("http://[", "not http")):
        head = f"HTTP/1.1 307 There\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
        camera = Camera(partial(answering, head.encode()))
        taken = take(source=f"http://127.0.0.1:{camera.port}/still.jpg")
        eventually(partial(has_no_signal, taken))
        assert reason in taken.states[-1][1]
        camera.unplug()


@pytest.mark.parametrize(("reader", "program"), [("gstreamer", "gst-launch-1.0"), ("ffmpeg", "ffmpeg")])
def test_a_film_of_a_telephone_stands_upright_whatever_its_name_is(
    take: Callable[..., Taken], tmp_path: Path, reader: str, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    lying = made(tmp_path / "lying.mp4", "testsrc=size=64x48:rate=10:duration=1", "-c:v", "mpeg4")
    file = tmp_path / 'mother\'s "film"\\ 1! fakesink %d.mp4'
    turn = ["-c", "copy", "-metadata:s:v:0", "rotate=90"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", lying, *turn, f"file:{file}"], check=True)
    taken = take(source=str(file), reader=reader)
    eventually(lambda: taken.state is State.ENDED)
    assert taken.capture.size == (48, 64)
    assert len(taken.frames) == 10


def test_secrets_are_taken_out_of_whatever_is_said() -> None:
    said = redacted("cannot open rtsp://admin:pa:ss@10.0.0.9:554/x?token=abc&a=1 now")
    assert said == "cannot open rtsp://***@10.0.0.9:554/x?token=***&a=1 now"
    assert "hunter2" not in plain("ERROR: login hunter2 failed", ("hunter2",))
    assert plain("ERROR: from element: Unauthorized") == "the camera refuses the user or password"


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "ERROR: from element /GstPipeline:pipeline0/GstLibcameraSrc:libcamerasrc0: Could not find any supported "
            "camera on this system.",
            "libcamera finds no camera",
        ),
        (
            "ERROR: from element /GstPipeline:pipeline0/GstV4l2Src:v4l2src0: Cannot identify device '/dev/video0'.",
            "it does not exist",
        ),
        ('WARNING: erroneous pipeline: no element "libcamerasrc"', "GStreamer has no libcamerasrc"),
    ],
)
def test_what_readers_of_cameras_print_is_said_in_plain_words(printed: str, reason: str) -> None:
    assert reason in plain(printed)


@pytest.mark.parametrize(
    ("text", "live"),
    [("rtsp://h/x", True), ("/dev/video0", True), ("libcamera:0", True), ("http://h/x.jpg", True), ("/v/x.mp4", False)],
)
def test_sources_know_whether_they_wait(text: str, live: bool) -> None:
    assert understand(text).live is live
