"""Models from files, and pictures with answers on them: run, push, pull, remove, init, -o."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeaid import errors
from edgeaid.cli import accuracy
from edgeaid.cli import private as private_daemon
from edgeaid.cli.text import picture_lines
from edgeaid.models import manifest as manifests
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.waiting import eventually
from ..toolkit.tflite_builder import Graph, Op, T, build
from .test_manners import COMMAND, call

DIGITS = EMBEDDED / "digits" / "1"
PICTURES = sorted((DIGITS / "samples").glob("*.png"))
SCENE = sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))[0]


@pytest.fixture
def private(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user whose private daemon is this test's own, and its end."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "EDGEAI_PRIVATE_IDLE_SECONDS": "60"}
    (tmp_path / "run").mkdir()
    yield environment
    for keeper in keepers(tmp_path / "run" / "edgeai"):
        os.kill(keeper, signal.SIGTERM)


def keepers(directory: Path) -> list[int]:
    """Processes that look after the private daemon in `directory`."""
    keeping = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"edgeaid.cli.private" in words and str(directory).encode() in words:
            keeping.append(int(path.parent.name))
    return keeping


def test_one_command_leads_from_a_model_file_and_a_picture_to_an_answer(
    private: dict[str, str], tmp_path: Path
) -> None:
    if Path("/run/edgeai/edgeaid.sock").exists():
        pytest.skip("a system daemon answers here")
    file = tmp_path / "My model (v2).tflite"
    shutil.copy(DIGITS / "model.tflite", file)
    words = ("run", file, PICTURES[0], "--input-format", "GRAY", "--labels", tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_text("".join(f"digit {n}\n" for n in range(10)))
    first = call(None, *words, **private)
    assert first.returncode == 0, first.stderr
    assert f"digit {PICTURES[0].stem[-1]}" in first.stdout
    assert "started a private one" in first.stderr
    second = call(None, *words, "--json", **private)
    assert "private" not in second.stderr, "it is warm"
    answer = json.loads(second.stdout)
    assert (answer["model"], answer["version"]) == ("My-model-v2", "1"), "the same file is not a new version"
    socket = Path(private["XDG_RUNTIME_DIR"]) / "edgeai" / "edgeaid.sock"
    assert "My-model-v2" in call(socket, "models").stdout
    assert len(keepers(socket.parent)) == 1


def test_a_private_daemon_ends_when_nobody_asks(private: dict[str, str], tmp_path: Path) -> None:
    if Path("/run/edgeai/edgeaid.sock").exists():
        pytest.skip("a system daemon answers here")
    private["EDGEAI_PRIVATE_IDLE_SECONDS"] = "6"
    assert call(None, "run", "digits", PICTURES[0], **private).returncode == 0
    until = time.monotonic() + 60
    while keepers(tmp_path / "run" / "edgeai") and time.monotonic() < until:
        time.sleep(0.1)
    assert not keepers(tmp_path / "run" / "edgeai")


def test_the_private_daemons_place_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert private_daemon.place() == tmp_path / f"edgeai-{os.getuid()}", "what is not there is not used"
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert private_daemon.place() == tmp_path / "run" / "edgeai"
    (tmp_path / "run" / "edgeai").chmod(0o755)
    with pytest.raises(errors.PermissionDenied, match="remove it and run again"):
        private_daemon.place()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(errors.Unavailable, match="set TMPDIR"):
        private_daemon.place()


def test_a_daemon_that_was_named_is_not_replaced_by_a_private_one(tmp_path: Path) -> None:
    done = call(tmp_path / "none.sock", "run", DIGITS / "model.tflite", PICTURES[0])
    assert done.returncode == 75
    assert "private" not in done.stderr


def test_push_takes_the_name_from_the_file_and_the_same_file_is_no_new_version(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    daemon = start()
    file = tmp_path / "numbers.tflite"
    shutil.copy(DIGITS / "model.tflite", file)

    def push(*words: Any) -> dict[str, Any]:
        done = call(daemon.socket, "--json", "push", *words)
        assert done.returncode == 0, done.stderr + done.stdout
        return dict(json.loads(done.stdout))

    assert (push(file)["name"], push(file)["version"]) == ("numbers", "1")
    assert push("numbers", file)["unchanged"]
    assert push(file, "numbers")["unchanged"], "either order"
    assert push(file, "--version", "5")["version"] == "5", "a version that is asked for is made"
    assert call(daemon.socket, "rollback", "numbers").returncode == 0
    assert push(file)["version"] == "5", "pushing says: serve this"
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n")
    assert push(file, "--labels", tmp_path / "labels.txt")["version"] == "6", "other labels are another model"
    assert push(DIGITS)["name"] == "digits"
    bundle = call(None, "model", "bundle", DIGITS, "-o", tmp_path / "x.edgeai")
    assert bundle.returncode == 0, bundle.stderr
    assert push(tmp_path / "x.edgeai")["name"] == "digits"


def test_remove_without_a_version_takes_the_model_away(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()
    file = tmp_path / "numbers.tflite"
    shutil.copy(DIGITS / "model.tflite", file)
    for version in ("1", "2"):
        assert call(daemon.socket, "push", file, "--version", version).returncode == 0
    done = call(daemon.socket, "rm", "numbers", "--yes")
    assert (done.returncode, done.stdout) == (0, "numbers is deleted (version 1, 2)\n"), done.stderr
    assert "numbers" not in call(daemon.socket, "models").stdout
    assert not list(daemon.repository.glob("numbers/*"))
    assert call(daemon.socket, "remove", "nosuch").returncode == 66


def test_a_parent_directory_says_where_the_model_is(daemon: Running) -> None:
    for directory in (EMBEDDED, EMBEDDED / "digits"):
        done = call(daemon.socket, "push", directory)
        assert done.returncode == 65
        assert str(DIGITS) in done.stderr
    assert call(daemon.socket, "push", "nowhere.tflite").returncode == 66


def test_init_writes_a_manifest_to_edit_that_is_valid_as_it_is(daemon: Running, tmp_path: Path) -> None:
    done = call(None, "model", "init", DIGITS / "model.tflite", "--name", "mine", "-o", tmp_path, "--mean", "0",
                "--std", "255", "--input-format", "gray")  # fmt: skip
    assert done.returncode == 0, done.stderr
    toml = tmp_path / "mine" / "1" / "model.toml"
    parsed = manifests.parse(toml.read_bytes(), "mine")
    assert parsed.picture is not None
    assert (parsed.picture.color, parsed.picture.mean, parsed.picture.std) == ("GRAY", (0.0,), (255.0,))
    text = toml.read_text()
    assert "# letterbox" in text or "letterbox" in text
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if " = " in line or "[" in line[:3])
    assert tomllib.loads(uncommented), "every example in it is TOML"
    assert call(None, "model", "init", DIGITS / "model.tflite", "--name", "mine", "-o", tmp_path).returncode == 64


def test_try_prints_the_accuracy_on_labelled_pictures(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()
    for picture in PICTURES:
        directory = tmp_path / "labelled" / picture.stem.rsplit("-", 1)[1]
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, directory)
    (tmp_path / "labelled" / PICTURES[0].stem[-1] / "bad.png").write_bytes(b"no picture")
    done = call(daemon.socket, "push", DIGITS, "--json", "--try", tmp_path / "labelled")
    assert done.returncode == 0, done.stderr
    accuracy = json.loads(done.stdout)["accuracy"]
    assert (accuracy["right"], accuracy["asked"], accuracy["unread"]) == (len(PICTURES), len(PICTURES), 1)


def _colours(file: Path) -> None:
    """A bare detector: a picture is a thing of class 0 as far as it is red, of class 1 green, of class 2 blue."""
    weights = np.zeros((100, 6, 8 * 8, 3), np.float32)
    rest = np.zeros((100, 6), np.float32)
    for colour in range(3):
        weights[colour, 4, :, colour] = 1 / 64  # the score is the mean of one channel
        rest[colour] = (0.1, 0.1, 0.9, 0.9, 0, colour)
    tensors = [
        T("in", [1, 8, 8, 3]), T("row", [2], "INT32", data=[1, 192]), T("flat", [1, 192]),
        T("weights", [600, 192], data=weights.reshape(600, 192)), T("rest", [600], data=rest.reshape(600)),
        T("all", [1, 600]), T("boxes", [3], "INT32", data=[1, 100, 6]), T("out", [1, 100, 6]),
    ]  # fmt: skip
    operators = [
        Op("RESHAPE", ["in", "row"], ["flat"]),
        Op("FULLY_CONNECTED", ["flat", "weights", "rest"], ["all"]),
        Op("RESHAPE", ["all", "boxes"], ["out"]),
    ]
    file.write_bytes(build(Graph(tensors, operators, ["in"], ["out"])))


def test_a_detector_is_tried_on_labelled_pictures_too(daemon: Running, tmp_path: Path) -> None:
    _colours(tmp_path / "colours.tflite")
    (tmp_path / "labels.txt").write_text("dark red\ngreen\nblue\n")
    for label, colour in (("Dark_Red", "red"), ("1", "lime"), ("blue", "blue"), ("blue", "lime"), ("green", "black")):
        (tmp_path / "labelled" / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "labelled" / label / f"{colour}.png")
    words = ("push", tmp_path / "colours.tflite", "--labels", tmp_path / "labels.txt", "--try", tmp_path / "labelled")
    done = call(daemon.socket, *words)
    assert done.returncode == 0, done.stderr
    assert "accuracy: 3 of 5 pictures, 60.0% (right: an object of the label was detected)" in done.stdout
    accuracy = json.loads(call(daemon.socket, *words, "--json").stdout)["accuracy"]
    wrong = [(m["label"], m["answer"]) for m in accuracy["mistakes"]]
    assert sorted(wrong) == [("blue", "green"), ("green", "(nothing)")]
    assert accuracy["task"] == "detect"


@pytest.mark.parametrize(
    ("directory", "index", "label"),
    [
        ("tench", 1, "tench, Tinca tinca"),
        ("Tinca_tinca", 1, "tench, Tinca tinca"),
        ("speed-limit 30", 4, "Speed limit/30"),
        ("Ka\u0308se", 2, "K\u00e4se"),  # as macOS writes directories, and as label files are written
        ("007", 7, "ship"),
        ("03", 0, "3"),
    ],
)
def test_a_directory_means_a_label_in_every_spelling_that_directories_have(
    directory: str, index: int, label: str
) -> None:
    assert accuracy._is(directory, index, label)
    assert not accuracy._is(directory, 12, "another")


def test_labels_that_were_never_right_are_named_and_what_tools_leave_is_not_counted(
    daemon: Running, tmp_path: Path
) -> None:
    for name in ("2/a.png", "zwei/a.png", "2/._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(next(p for p in PICTURES if p.stem == "digit-2"), tmp_path / name)
    words = ("push", DIGITS, "--try", tmp_path)
    done = call(daemon.socket, *words)
    assert "accuracy: 1 of 2 pictures, 50.0%" in done.stdout
    assert "no picture of 'zwei' was right" in done.stdout
    assert json.loads(call(daemon.socket, *words, "--json").stdout)["accuracy"]["never_right"] == ["zwei"]


def test_a_segmenter_is_right_where_the_label_covers_a_part_of_the_picture(daemon: Running, tmp_path: Path) -> None:
    mask = EMBEDDED / "digit-mask" / "1"
    scene = sorted((mask / "samples").glob("*.png"))[0]
    shows = json.loads(call(daemon.socket, "segment", "digit-mask", scene, "--json").stdout)["classes"]
    there = next(c["label"] for c in shows if c["label"].isdecimal() and c["fraction"] > 0.01)
    absent = next(str(d) for d in range(10) if str(d) not in [c["label"] for c in shows])
    for label in (there, absent):
        (tmp_path / label).mkdir()
        shutil.copy(scene, tmp_path / label)
    done = call(daemon.socket, "push", mask, "--json", "--try", tmp_path)
    accuracy = json.loads(done.stdout)["accuracy"]
    assert (accuracy["right"], accuracy["asked"]) == (1, 2)
    assert accuracy["mistakes"][0]["label"] == absent


def test_a_published_file_gets_its_labels_from_inside_or_from_beside_it(
    start: Callable[..., Running], shared_data: Path, tmp_path: Path
) -> None:
    daemon = start()
    coral = shared_data / "coral"
    for name in ("mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v2_1.0_224_inat_bird_quant.tflite"):
        shutil.copy(coral / name, tmp_path)
        assert call(daemon.socket, "push", name.split("_quant")[0], tmp_path / name).returncode == 0
    inside = call(daemon.socket, "--json", "classify", "mobilenet_v1_0.25_128", coral / "parrot.jpg")
    assert json.loads(inside.stdout)["classes"][0]["label"] == "macaw"
    bird = tmp_path / "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
    shutil.copy(coral / "inat_bird_labels.txt", tmp_path)
    done = call(daemon.socket, "--json", "run", bird, coral / "parrot.jpg")
    assert "macaw" in json.loads(done.stdout)["classes"][0]["label"].lower(), done.stderr


def test_the_keypoints_of_a_pose_reach_the_program_and_the_terminal(
    start: Callable[..., Running], shared_data: Path, tmp_path: Path
) -> None:
    model = shared_data.parent / "findings" / "toolkit" / "movenet_single_pose_lightning_ptq.tflite"
    if not model.is_file():
        pytest.skip(f"no pose model here: {model}")
    daemon = start()
    picture = shared_data / "coral" / "grace_hopper.bmp"
    done = call(daemon.socket, "run", model, picture, "-t", "0.05", "-o", tmp_path / "drawn.jpg")
    assert done.returncode == 0, done.stderr
    assert "KEYPOINTS" in done.stdout
    assert Image.open(tmp_path / "drawn.jpg").format == "JPEG"
    with daemon.client() as client:
        (person,) = client.pose("movenet_single_pose_lightning_ptq", picture, threshold=0.05, max_results=1)
    assert len(person.keypoints) == 17
    nose = person.keypoints[0]
    assert nose[2] > 0.1
    assert 0.3 < nose[0] < 0.7


def test_pull_takes_what_the_devices_here_need(
    start: Callable[..., Running], shared_data: Path, tmp_path: Path
) -> None:
    daemon = start()
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(shared_data / "coral" / "mobilenet_v1_0.25_128_quant.tflite", mirror)
    here = {"EDGEAI_MODEL_MIRROR": str(mirror)}
    for labels in (False, True):
        if labels:
            shutil.copy(shared_data / "coral" / "imagenet_labels.txt", mirror)
        done = call(daemon.socket, "pull", "mobilenet-v1-0.25-128", **here)
        assert done.returncode == 0, done.stderr
        assert ("imagenet_labels.txt" in done.stderr) is not labels, (
            "a mirror that lacks the labels serves, and says so"
        )
    assert call(daemon.socket, "pull", "mobilenet-v1-0.25-128", "--all", **here).returncode == 66
    assert "did you mean 'inat-bird'" in call(daemon.socket, "pull", "inat-brid", **here).stderr
    needs = call(daemon.socket, "pull", "k210-slim-320", **here)
    assert needs.returncode == 66
    assert "k210" in needs.stderr


def test_the_suffix_decides_the_format_and_the_drawn_picture_shows_what_is_printed(
    daemon: Running, tmp_path: Path
) -> None:
    sizes = {}
    for suffix, form in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP")):
        file = tmp_path / f"out{suffix}"
        done = call(daemon.socket, "detect", "digit-scenes", SCENE, "-o", file)
        assert done.returncode == 0, done.stderr
        assert f"wrote {file}" in done.stderr
        assert Image.open(file).format == form
    for top in (1, 10):
        file = tmp_path / f"top{top}.png"
        assert call(daemon.socket, "classify", "digits", PICTURES[0], "-k", top, "-o", file).returncode == 0
        image = Image.open(file).convert("RGB")
        sizes[top] = sum(pixel == (32, 32, 32) for pixel in image.get_flattened_data())
    assert sizes[1] * 3 < sizes[10], "one caption for one class"


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_asked(daemon: Running, tmp_path: Path) -> None:
    asked = served(daemon)
    for output, text, status in (
        (tmp_path / "x.xyz", "written as", 64),
        (tmp_path / "none" / "x.png", "no directory", 73),
    ):
        done = call(daemon.socket, "classify", "digits", PICTURES[0], "-o", output)
        assert (done.returncode, text in done.stderr) == (status, True), done.stderr
    done = call(daemon.socket, "classify", "digits", *PICTURES[:2], "-o", tmp_path / "x.png")
    assert "name a directory" in done.stderr
    assert served(daemon) == asked


def test_several_pictures_are_drawn_into_a_directory_each_under_its_name(daemon: Running, tmp_path: Path) -> None:
    other = tmp_path / "other" / PICTURES[0].name
    other.parent.mkdir()
    shutil.copy(PICTURES[1], other)
    done = call(daemon.socket, "classify", "digits", *PICTURES[:2], other, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == sorted([PICTURES[0].name, PICTURES[1].name, f"{PICTURES[0].stem}-3.png"])


def test_a_bad_picture_among_many_is_named_and_the_others_are_answered(daemon: Running, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    done = call(daemon.socket, "classify", "digits", PICTURES[0], bad, tmp_path / "none.png", PICTURES[1])
    assert done.returncode in (64, 66)
    assert str(PICTURES[0]) in done.stdout
    assert str(PICTURES[1]) in done.stdout
    assert str(bad) in done.stderr
    assert "2 of 4 pictures" in done.stderr
    machine = call(daemon.socket, "--json", "classify", "digits", PICTURES[0], bad)
    assert ["error" in answer for answer in json.loads(machine.stdout)] == [False, True]


def test_an_address_is_refused_as_such(daemon: Running) -> None:
    done = call(daemon.socket, "classify", "digits", "https://example.org/cat.jpg")
    assert done.returncode == 64
    assert "https://example.org/cat.jpg is an address" in done.stderr


def test_pictures_are_shown_as_coloured_half_blocks(daemon: Running) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(buffer, "PNG")
    assert picture_lines(buffer.getvalue(), 4).splitlines() == ["\x1b[38;2;255;0;0;48;2;255;0;0m▀" * 4 + "\x1b[0m"] * 2
    done = subprocess.run(
        [*COMMAND, "classify", "digits", PICTURES[0], "--show"],
        capture_output=True, text=True, check=False, env={**os.environ, "EDGEAI_SOCKET": str(daemon.socket)},
    )  # fmt: skip
    assert done.stdout.count("▀") > 400


def served(daemon: Running) -> int:
    with daemon.client() as client:
        return sum(s["inference_stats"]["success"]["count"] for s in client.stats())


def test_a_frame_of_a_stream_is_written_as_its_suffix_says_and_a_wrong_table_is_named(
    daemon: Running, tmp_path: Path
) -> None:
    table = tmp_path / "cam.toml"
    table.write_text('[stream.cam]\nsource = "test:digits?width=64&height=48"\nfpss = 2\n')
    refused = call(daemon.socket, "stream", "add", "cam", "--table", table)
    assert refused.returncode == 65
    assert f"{table}, line 3: stream.cam.fpss: unknown key" in refused.stderr
    table.write_text(table.read_text().replace("fpss", "fps"))
    assert call(daemon.socket, "stream", "add", "cam", "--table", table).returncode == 0
    try:
        assert call(daemon.socket, "stream", "frame", "cam", "-o", tmp_path / "now.txt").returncode == 64
        eventually(lambda: daemon.http("GET", "/edgeai/v1/streams/cam/frame")[0] == 200)
        for suffix, form in ((".png", "PNG"), (".jpg", "JPEG")):
            file = tmp_path / f"now{suffix}"
            assert f"wrote {file}" in call(daemon.socket, "stream", "frame", "cam", "-o", file).stderr
            assert Image.open(file).format == form
    finally:
        call(daemon.socket, "stream", "remove", "cam")
