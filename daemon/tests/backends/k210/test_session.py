"""A backend and a board: the real agent, run by CPython and by a real MicroPython."""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.backends import create
from edgeaid.backends.k210 import backend as backends
from edgeaid.backends.k210.backend import K210Backend
from edgeaid.backends.k210.boot import connect
from edgeaid.backends.k210.frames import Type
from edgeaid.backends.k210.port import Port, find
from edgeaid.errors import DeviceError, InvalidConfig, InvalidModel, NotFound

from ...standins.k210 import facts
from ...support.waiting import eventually
from .conftest import Client


@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_a_board_at_its_repl_gets_the_agent_a_model_and_answers_rightly(
    runtime: str, start: Callable[..., Any], model: Path
) -> None:
    board = start(runtime=runtime)
    backend = create("k210")
    opened = backend.open(board.port, {})
    assert opened.facts["baud"] == 1500000
    assert opened.facts["kmodel_v4"] is True
    assert opened.runtime == "MaixPy agent 1.0"
    if runtime == "node":
        assert "MicroPython" in opened.facts["firmware"]
    assert isinstance(backend, K210Backend)
    client = Client(backend)
    loaded = client.load(model)
    assert loaded.outputs[0].shape == (1, 3, 32, 32)
    for _ in range(3):
        phases = client.ask()
        assert phases.infer_ns > 0
    backend.close()


@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_outputs_encodings_gray_and_camera(runtime: str, start: Callable[..., Any], tmp_path: Path) -> None:
    board = start(runtime=runtime)
    backend = K210Backend()
    backend.open(board.port, {})
    two = tmp_path / "two.kmodel"
    two.write_bytes(facts.small_kmodel(16, 8, 1, 2))
    backend.load("gray", two, {"outputs": [[16, 8, 1], [8, 8, 2]], "layout": "nhwc"})
    picture = np.arange(128, dtype=np.uint8).reshape(1, 8, 16, 1)
    outs = [np.zeros((1, 8, 16, 1), np.float32), np.zeros((1, 8, 8, 2), np.float32)]
    backend.infer("gray", [picture], outs)
    first, second = (np.frombuffer(a, "<f4") for a in facts.answer(picture.tobytes(), (512, 512)))
    assert (outs[0][0, :, :, 0] == first.reshape(8, 16)).all()
    assert (outs[1][0] == second.reshape(2, 8, 8).transpose(1, 2, 0)).all()

    colour = tmp_path / "colour.kmodel"
    colour.write_bytes(facts.small_kmodel(32, 32, 3))
    for encoding in ("raw", "zlib"):
        client = Client(backend, encoding)
        client.load(colour, encoding=encoding)
        client.ask()
        backend.unload(encoding)
    backend.load("jpeg", colour, {"encoding": "jpeg"})
    flat = np.full((1, 3, 32, 32), 255, np.uint8)  # the one colour that JPEG and RGB565 leave alone
    out = np.zeros((1, 3072), np.float32)
    backend.infer("jpeg", [flat], [out])
    assert out.tobytes() == facts.answer(flat.tobytes(), (12288,))[0]
    backend.unload("jpeg")

    made = backend.load("camera", two, {"camera": {"interval_ms": 5}})
    assert made.inputs == ()
    seen = []
    possible = {}
    for n in range(200):
        frame = bytes((7 * i + 13 * n) & 255 for i in range(128))
        possible[facts.answer(frame, (512, 512))[1]] = n
    for _ in range(4):
        views = [np.zeros((1, 128), np.float32), np.zeros((1, 128), np.float32)]
        backend.infer("camera", [], views)
        seen.append(possible[views[1].tobytes()])
    assert seen == sorted(set(seen))
    backend.infer("gray", [picture], outs)  # another model ends the stream
    assert (outs[0][0, :, :, 0] == first.reshape(8, 16)).all()
    backend.close()


def test_floats_go_to_a_v3_model_as_a_list(backend: K210Backend, shared_data: Path) -> None:
    io_ = backend.load("iris", shared_data / "k210" / "iris_v3.kmodel", {})
    assert io_.inputs[0].shape == (1, 4)
    values = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
    out = np.zeros((1, 3), np.float32)
    backend.infer("iris", [values], [out])
    assert out.tobytes() == facts.answer(values.tobytes(), (12,))[0]


def test_a_real_face_model_is_sent_loaded_and_run(start: Callable[..., Any], shared_data: Path) -> None:
    board = start("--unpaced")
    backend = K210Backend()
    backend.open(board.port, {})
    path = shared_data / "k210" / "slim-320_v4.kmodel"
    backend.load("face", path, {"outputs": [[4, 2210, 1], [4420, 4, 1]]})
    name = f"e{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.kmodel"
    assert (board.flash / name).read_bytes() == path.read_bytes()
    picture = np.random.default_rng(3).integers(0, 256, (1, 3, 240, 320), dtype=np.uint8)
    outs = [np.zeros((1, 1, 2210, 4), np.float32), np.zeros((1, 1, 4, 4420), np.float32)]
    backend.infer("face", [picture], outs)
    assert [o.tobytes() for o in outs] == facts.answer(picture.tobytes(), (35360, 70720))
    backend.close()


def test_a_model_that_is_on_the_board_already_is_not_sent_again(backend: K210Backend, board: Any, model: Path) -> None:
    Client(backend).load(model)
    before = board.do("stats")["to_board"]
    Client(backend, "again").load(model)
    assert board.do("stats")["to_board"] - before < model.stat().st_size
    (board.flash / next(p.name for p in board.flash.iterdir())).write_bytes(b"damaged")
    client = Client(backend, "third")
    client.load(model)
    client.ask()


def test_a_model_in_flash_is_used_by_its_address(backend: K210Backend, board: Any, model: Path) -> None:
    (board.flash / "0x500000.bin").write_bytes(model.read_bytes())
    client = Client(backend)
    assert client.load(model, address="0x500000").facts["on_board"] == "0x500000"
    client.ask()


def test_another_model_at_the_address_is_noticed(backend: K210Backend, board: Any, model: Path) -> None:
    (board.flash / "0x500000.bin").write_bytes(facts.small_kmodel(8, 8, 3))
    with pytest.raises(InvalidModel, match="set_outputs"):
        Client(backend).load(model, address=0x500000)


def test_full_flash_makes_room_by_deleting_our_older_models(start: Callable[..., Any], tmp_path: Path) -> None:
    board = start("--flash-size", "700")
    backend = K210Backend()
    backend.open(board.port, {})
    (board.flash / "boot.py").write_text("#")
    for w in (8, 16, 24, 32):
        path = tmp_path / f"{w}.kmodel"
        path.write_bytes(facts.small_kmodel(w, 32, 3))
        backend.load("m", path, {})
    assert "boot.py" in [p.name for p in board.flash.iterdir()]
    big = tmp_path / "big.kmodel"
    big.write_bytes(facts.small_kmodel(8, 8, 1, 8))
    with pytest.raises(InvalidModel, match="kfpkg"):
        backend.load("big", big, {})
    backend.close()


def test_a_sixth_model_is_refused_and_the_five_go_on(backend: K210Backend, tmp_path: Path) -> None:
    for i in range(5):
        path = tmp_path / f"{i}.kmodel"
        path.write_bytes(facts.small_kmodel(8, 8, 1))
        backend.load(str(i), path, {})
    with pytest.raises(InvalidModel, match="holds 5 models already"):
        backend.load("6", path, {})
    out = np.zeros((1, 64), np.float32)
    picture = np.ones((1, 1, 8, 8), np.uint8)
    backend.infer("0", [picture], [out])
    assert out.tobytes() == facts.answer(picture.tobytes(), (256,))[0]


def test_models_share_the_boards_memory(backend: K210Backend, tmp_path: Path) -> None:
    path = tmp_path / "large.kmodel"
    path.write_bytes(facts.small_kmodel(320, 240, 3))  # 1.2 MB of main memory and 0.4 MB for the picture
    backend.load("one", path, {})
    backend.load("two", path, {})
    with pytest.raises(InvalidModel, match=r"large\.kmodel: needs 1152136 bytes of RAM, at most 597744 are free"):
        backend.load("three", path, {})
    backend.unload("one")
    backend.load("three", path, {})


def test_damaged_and_absent_files_are_the_models_fault(backend: K210Backend, tmp_path: Path) -> None:
    path = tmp_path / "bad.kmodel"
    path.write_bytes(os.urandom(100))
    with pytest.raises(InvalidModel):
        backend.load("bad", path, {})
    with pytest.raises(InvalidModel, match="No such file"):
        backend.load("none", tmp_path / "none.kmodel", {})
    with pytest.raises(NotFound, match="not loaded"):
        backend.infer("none", [], [])


def test_the_repl_is_back_after_close(backend: K210Backend, board: Any) -> None:
    backend.close()
    port = Port(board.port)
    port.write(b"\r\nprint(6*7)\r\n")
    got = b""
    while b"42" not in got:
        part = port.read(2.0)
        assert part, got
        got += part
    port.close()


def test_a_second_user_of_the_port_is_told_who_may_have_it(backend: K210Backend, board: Any) -> None:
    with pytest.raises(DeviceError, match="in use by another program"):
        K210Backend().open(board.port, {})


def test_an_idle_board_is_kept_awake_and_a_forgotten_one_goes_back_to_its_repl(board: Any, model: Path) -> None:
    link = connect(Port(board.port))
    link.request(Type.HELLO, struct.pack("<BH", 1, 2))  # leave after 2 s of silence instead of 10
    eventually(lambda: board.do("stats")["baud"] == 115200)
    link.port.close()
    backend = K210Backend()
    backend.open(board.port, {})
    client = Client(backend)
    client.load(model)
    assert backend._link
    line = backend._link.line
    before = line.heard
    eventually(lambda: line.heard > before)  # asked by itself
    client.ask()
    assert backend.recoveries == 0
    backend.close()


def test_ports_are_found_by_path_and_refused_with_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"no serial port /dev/absent"):
        find("/dev/absent")
    with pytest.raises(DeviceError, match=r"no serial port at USB port 9-9\.9"):
        find("usb:9-9.9")


def test_wrong_options_are_refused_before_the_port_is_touched() -> None:
    with pytest.raises(InvalidConfig, match="reset 'x' is unknown; there are dan, kd233, goD"):
        K210Backend().open("/dev/absent", {"reset": "x"})
    with pytest.raises(InvalidConfig, match="baud 99"):
        K210Backend().open("/dev/absent", {"baud": 99})


def test_files_go_to_the_board_and_damage_is_noticed(board: Any) -> None:
    link = connect(Port(board.port))
    data = os.urandom(20000)
    link.put_file("/flash/some.bin", data)
    assert (board.flash / "some.bin").read_bytes() == data
    assert list(link.names("/flash")) == ["some.bin"]
    link.remove("/flash/some.bin")
    assert link.stat("/flash/some.bin") is None
    link.bye()
    link.port.close()


@pytest.mark.parametrize("rx", [8192, 2048])
def test_a_program_of_the_users_own_is_interrupted(rx: int, start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "flash").mkdir()
    (tmp_path / "flash" / "main.py").write_text("while True:\n    print('busy', 1 / 3)\n")
    board = start(state=tmp_path)
    backend = K210Backend()
    backend.open(board.port, {"rx": rx})
    backend.close()


def test_a_camera_that_nobody_asks_is_stopped(
    backend: K210Backend, board: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "UNWATCHED", 0.5)
    monkeypatch.setattr(backends, "KEEPALIVE", 0.2)
    backend.load("camera", model, {"camera": True})
    backend.infer("camera", [], [np.zeros((1, 3072), np.float32)])

    def runs() -> bool:
        """Whether the board's model runs within ten times what a picture takes."""
        before = board.do("stats")["forwards"]
        time.sleep(0.5)
        return bool(board.do("stats")["forwards"] > before)

    until = time.monotonic() + 60
    while runs():
        assert time.monotonic() < until, "the camera is never stopped"
    backend.infer("camera", [], [np.zeros((1, 3072), np.float32)])
    assert backend.recoveries == 0
