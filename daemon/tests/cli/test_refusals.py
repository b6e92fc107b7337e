"""What is refused is named for what it is, with the next step, before anything is changed."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgeaid.cli import local, main
from edgeaid.cli import model as of_model
from edgeaid.cli.models import models_table
from edgeaid.errors import EdgeaiError, InvalidRequest
from edgeaid.models import foreign
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running

DIGITS = EMBEDDED / "digits" / "1"
PICTURE = sorted((DIGITS / "samples").glob("*.png"))[0]


def call(socket: Path | None, *words: object) -> Result:
    """A verb in this process: what is tried here needs no terminal and no signals."""
    environment = {"COLUMNS": "200", "EDGEAI_SOCKET": str(socket or "/nonexistent/edgeaid.sock")}
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="edgeai", env=environment)


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    """A daemon whose models these tests push and delete, each its own."""
    running = launch(tmp_path_factory.mktemp("steered"))
    yield running
    running.stop()


def _zip(*names: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, "x")

    return write


def _bytes(data: bytes) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        file.write_bytes(data)

    return write


def _picture(form: str) -> Callable[[Path], None]:
    return lambda file: Image.new("RGB", (8, 8)).save(file, form)


#: Name -> (how it is made, what the refusal says).
WRONG: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "net.keras": (_zip("metadata.json", "config.json", "model.weights.h5"), ("Keras model", "edgeai model quantize ")),
    "net.pt": (_zip("archive/data.pkl", "archive/version"), ("PyTorch", "edgeai model convert ")),
    "converted.zip": (_zip("model_unquant.tflite", "labels.txt"), ("zip archive", "push model_unquant.tflite")),
    "docs.zip": (_zip("a.txt"), ("zip archive", "edgeai model bundle")),
    "cut.edgeai": (_bytes(b"PK\x03\x04"), ("bytes", "download or export it again")),
    "photo.jpg": (_picture("JPEG"), ("a JPEG picture", "edgeai classify NAME ")),
    "photo.webp": (_picture("WEBP"), ("a WebP picture", "convert it")),
    "photo.tif": (_picture("TIFF"), ("a TIFF picture", "convert it")),
    "photo.heic": (_bytes(b"\0\0\0\x18ftypheic" + bytes(64)), ("a HEIC picture", "convert it")),
    "film.mp4": (_bytes(b"\0\0\0\x20ftypisom" + bytes(64)), ("a video", "edgeai stream add")),
    "net.gguf": (_bytes(b"GGUF" + bytes(64)), ("a language model", "push a .tflite")),
    "w.safetensors": (_bytes(b'\x10\0\0\0\0\0\0\0{"a":{}}' + bytes(64)), ("safetensors", "ONNX")),
    "notes.txt": (_bytes(b"hello world\n"), ("this is a text", "push a .tflite")),
    "nothing.tflite": (_bytes(b""), ("empty", "download or export it again")),
    "array.npy": (lambda file: np.save(file, np.zeros(3)), ("NumPy array", "push a .tflite")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_pushed_is_named_for_what_it_is_with_the_next_step(tmp_path: Path, name: str) -> None:
    write, words = WRONG[name]
    file = tmp_path / "my files" / name
    file.parent.mkdir()
    write(file)
    with pytest.raises(EdgeaiError) as refused:
        local.check_file(file)
    text = str(refused.value)
    assert text.startswith(f"{file}: ")
    assert all(word in text for word in words), text
    if " FILE" in text or "my files" in text.removeprefix(f"{file}: "):
        assert f"'{file}'" in text, "a command can be pasted, also where the path has spaces"


def test_what_cannot_be_served_is_refused_without_a_daemon(tmp_path: Path) -> None:
    WRONG["net.keras"][0](tmp_path / "net.keras")
    for verb in (("push", tmp_path / "net.keras"), ("run", tmp_path / "net.keras", PICTURE)):
        done = call(tmp_path / "none.sock", *verb)
        assert (done.exit_code, done.stdout) == (65, "")
        assert f"edgeai model quantize {tmp_path / 'net.keras'}" in done.stderr


def _commands(texts: Iterable[str]) -> set[str]:
    """Commands of edgeai in sentences: verbs, then at least one argument in capitals, options and their values."""
    word = r"(?:--[a-z-]+|[A-Z][A-Za-z]*(?:\.\w+)?|\d[\d,]*|\w+\.py|tflite|ncs)"
    return {
        c for text in texts for c in re.findall(rf"edgeai ((?:[a-z]+ ){{1,2}}[A-Z]+(?:\.\w+)?\b(?: {word})*)", text)
    }


def test_every_command_that_a_refusal_names_is_one_that_edgeai_takes() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (foreign, local)]
    sources = [re.sub(r'"\n\s*f?"', "", source) for source in sources]  # texts that are written on several lines
    for name in ("_CONVERT", "_QUANTISE", "_EXPORT", "_NODES"):
        sources = [source.replace(f"{{{name}}}", getattr(foreign, name)) for source in sources]
    commands = _commands([*foreign._NEXT.values(), *sources])
    assert len(commands) > 8
    for command in sorted(commands):
        group: click.Command = main
        context = click.Context(main)
        words = command.split()
        while isinstance(group, click.Group):
            _, below, words = group.resolve_command(context, words)
            assert below is not None
            group = below
        group.make_context(command, words, parent=context)  # a missing or unknown option is an error


def test_verbs_of_another_group_are_named_where_they_are_looked_for() -> None:
    for verb in of_model.VERBS:
        assert f"Did you mean 'edgeai model {verb}'?" in call(None, verb, "x.tflite").output
    assert "Did you mean 'edgeai push'?" in call(None, "model", "push", "x.tflite").output
    assert "Did you mean 'help'?" in call(None, "helo").output


def test_where_the_system_s_daemon_does_not_answer_the_private_one_is_named(
    steered: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgeai").mkdir()
    socket = tmp_path / "edgeai" / "edgeaid.sock"
    monkeypatch.setattr("edgeaid.cli.common.HTTP_SOCKET", str(tmp_path / "none.sock"))
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "EDGEAI_SOCKET": None}
    said = f"export EDGEAI_SOCKET={socket}"
    verb = ["--timeout", "0.1", "models"]
    assert said not in CliRunner().invoke(main, verb, prog_name="edgeai", env=environment).stderr
    socket.symlink_to(steered.socket)
    assert said in CliRunner().invoke(main, verb, prog_name="edgeai", env=environment).stderr
    named = ["--socket", str(tmp_path / "other.sock"), *verb]
    assert said not in CliRunner().invoke(main, named, prog_name="edgeai", env=environment).stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--labels", PICTURE), 65, "this is a PNG picture, not a list of labels"),
        (("--labels", DIGITS / "model.tflite"), 65, "this is a .tflite model, not a list of labels"),
        (("--mean", "1,2", "--std", "1,1"), 64, "--mean '1,2' has 2 numbers; give one, or one per channel"),
        (("--mean", "0", "--std", "-1"), 64, "--std must be above 0"),
    ],
)
def test_what_cannot_describe_a_model_is_refused_by_its_option(
    words: tuple[object, ...], status: int, said: str
) -> None:
    done = call(None, "push", "mine", DIGITS / "model.tflite", *words)
    assert (done.exit_code, said in done.stderr) == (status, True), done.stderr


def test_colours_are_left_out_where_the_environment_says_so() -> None:
    for wish, coloured in (("", True), ("1", False)):
        environment = {"NO_COLOR": wish, "EDGEAI_SOCKET": "/nonexistent/edgeaid.sock"}
        done = CliRunner().invoke(main, ["doctor"], prog_name="edgeai", env=environment, color=True)
        assert ("\x1b[" in done.output) is coloured


def test_run_looks_at_the_pictures_before_anything_is_uploaded(steered: Running, tmp_path: Path) -> None:
    for picture, said in ((tmp_path, "is a directory"), ("nope.jpg", "No such file"), ("http://x/a.jpg", "address")):
        done = call(steered.socket, "run", DIGITS / "model.tflite", picture)
        assert said in done.stderr
        assert done.exit_code in (64, 66)
    with steered.client() as client:
        assert "model" not in {model.name for model in client.models()}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("saved_model.pb",), "edgeai model quantize "),
        (("labels.txt", "model.tflite"), "model.tflite --labels "),
        (("net.kmodel",), "net.kmodel"),
        (("net.onnx", "read.me"), "net.onnx"),
        ((), "edgeai model init FILE"),
    ],
)
def test_a_directory_that_is_not_a_model_directory_says_what_in_it_is_meant(
    tmp_path: Path, files: tuple[str, ...], said: str
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidRequest, match=said):
        local.check_file(tmp_path)


@pytest.mark.parametrize(
    ("path", "target", "data"),
    [
        ("net.kmodel", "k210", b"LDMK\x05\0\0\0" + bytes(100)),
        ("net.xml", "ncs2", b'<?xml version="1.0"?><net name="a" version="11"><layers/></net>'),
    ],
)
def test_init_makes_a_model_directory_of_a_file_for_an_accelerator(
    tmp_path: Path, path: str, target: str, data: bytes
) -> None:
    (tmp_path / path).write_bytes(data)
    refused = call(tmp_path / "none.sock", "push", tmp_path / path)
    assert refused.exit_code == 65
    assert f"edgeai model init {tmp_path / path}" in refused.stderr
    if target == "ncs2":
        bare = call(None, "model", "init", tmp_path / path, "-o", tmp_path / "early")
        assert bare.exit_code == 66, "an IR is nothing without its weights"
        (tmp_path / "net.bin").write_bytes(b"weights")
    done = call(None, "model", "init", tmp_path / path, "-o", tmp_path / "made")
    assert done.exit_code == 0, done.stderr
    assert f"[artifacts.{target}]" in (tmp_path / "made" / "net" / "1" / "model.toml").read_text()
    packed = call(
        None, "model", "bundle", tmp_path / "made" / "net" / "1", "-o", tmp_path / "net.edgeai", "--golden", "0"
    )
    assert packed.exit_code == 0, packed.stderr
    with zipfile.ZipFile(tmp_path / "net.edgeai") as bundle:
        assert ("model.bin" in bundle.namelist()) == (target == "ncs2")


@pytest.mark.parametrize(
    ("stem", "name"), [("größe", "grosse"), ("a b (1)", "a-b-1"), (".x", "x"), ("模型", "model"), ("x" * 80, "x" * 64)]
)
def test_a_models_name_is_made_of_its_files(tmp_path: Path, stem: str, name: str) -> None:
    file = tmp_path / f"{stem}.tflite"
    shutil.copy(DIGITS / "model.tflite", file)
    assert local.name_of(file) == name


def test_a_name_that_no_model_may_have_is_answered_with_how_to_give_another(tmp_path: Path) -> None:
    shutil.copy(DIGITS / "model.tflite", tmp_path / "stats.tflite")
    with pytest.raises(EdgeaiError, match="edgeai push NAME"):
        local.name_of(tmp_path / "stats.tflite")


def test_a_model_that_comes_with_the_system_is_not_unloaded_by_an_attempt_to_delete_it(steered: Running) -> None:
    for words in (("rm", "digits"), ("rm", "digits", "--yes"), ("rm", "digits-", "--yes")):
        done = call(steered.socket, *words)
        assert done.exit_code == 66
        assert "edgeai unload digits" in done.stderr or "did you mean 'digits'" in done.stderr
    assert call(steered.socket, "classify", "digits", PICTURE).exit_code == 0
    assert call(steered.socket, "push", "digits", DIGITS / "model.tflite", "--version", "2").exit_code == 0
    done = call(steered.socket, "rm", "digits", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "version 1, which comes with the system, serves again" in done.stdout
    assert json.loads(call(steered.socket, "classify", "digits", PICTURE, "--json").stdout)["version"] == "1"


def test_a_model_that_is_unloaded_can_be_deleted_and_says_how_it_is_served_again(
    steered: Running, tmp_path: Path
) -> None:
    shutil.copy(DIGITS / "model.tflite", tmp_path / "mine.tflite")
    assert call(steered.socket, "push", tmp_path / "mine.tflite").exit_code == 0
    assert call(steered.socket, "unload", "mine").exit_code == 0
    assert "edgeai load mine serves it" in call(steered.socket, "classify", "mine", PICTURE).stderr
    assert "there are: 1" in call(steered.socket, "remove", "mine", "9").stderr
    for verb in ("load", "unload"):
        assert "did you mean 'mine'?" in call(steered.socket, verb, "mien").stderr
    done = call(steered.socket, "rm", "mine", "--yes")
    assert (done.exit_code, done.stdout) == (0, "mine is deleted (version 1)\n")


def test_a_picture_that_cannot_be_read_is_named_with_what_it_is(daemon: Running, tmp_path: Path) -> None:
    for name, what in (("a.webp", "a WebP picture"), ("a.tif", "a TIFF picture"), ("a.txt", "not a picture")):
        file = tmp_path / name
        if name == "a.txt":
            file.write_text("hello")
        else:
            Image.new("RGB", (8, 8)).save(file)
        done = call(daemon.socket, "classify", "digits", file)
        assert done.exit_code == 65
        assert done.stderr.startswith(f"edgeai: {file}: ")
        assert what in done.stderr
        assert "JPEG, PNG, BMP" in done.stderr
    missing = call(daemon.socket, "classify", "digits", tmp_path / "no.png", PICTURE)
    assert missing.stderr.count("no.png") == 1


@pytest.mark.parametrize(
    ("address", "next_step"),
    [
        ("https://example.com/a.jpg", "curl -O https://example.com/a.jpg"),
        ("file:///tmp/a.jpg", "name the file as /tmp/a.jpg"),
        ("rtsp://camera/live", "rtsp://camera/live is an address"),
    ],
)
def test_an_address_is_refused_with_the_way_to_its_picture(daemon: Running, address: str, next_step: str) -> None:
    done = call(daemon.socket, "classify", "digits", address)
    assert done.exit_code == 64
    assert next_step in done.stderr


def test_a_drawn_picture_never_takes_the_place_of_one_that_is_asked_about(daemon: Running, tmp_path: Path) -> None:
    original = PICTURE.read_bytes()
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(original)
    for words in (("a.png", "-o", "a.png"), ("a.png", "b.png", "-o", "."), ("./a.png", "-o", ".")):
        done = call(daemon.socket, "classify", "digits", *(w if w == "-o" else tmp_path / w for w in words))
        assert done.exit_code == 64
        assert "would overwrite" in done.stderr
        assert done.stdout == ""
    assert [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")] == [original] * 2


def test_pictures_of_the_same_name_are_each_written(daemon: Running, tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("a-3.png", "x/a.png", "y/a.png", "z/a.png")]
    for picture in pictures:
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(PICTURE.read_bytes())
    assert call(daemon.socket, "classify", "digits", *pictures, "-o", tmp_path / "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a-3.png", "a-4.png", "a-5.png", "a.png"]


def test_labelled_pictures_are_looked_for_before_a_model_is_pushed(steered: Running, tmp_path: Path) -> None:
    shutil.copy(DIGITS / "model.tflite", tmp_path / "labelled.tflite")
    (tmp_path / "empty").mkdir()
    done = call(steered.socket, "push", tmp_path / "labelled.tflite", "--try", tmp_path / "empty")
    assert done.exit_code == 65
    assert "subdirectories named by label" in done.stderr
    assert "labelled" not in call(steered.socket, "models").stdout


def test_a_model_asked_without_its_tensors_says_which_it_needs(daemon: Running) -> None:
    done = call(daemon.socket, "infer", "digits")
    assert done.exit_code == 64
    assert "-i image=FILE.npy (image: INT8 [1, 32, 32, 1])" in done.stderr


def test_help_is_a_word_too() -> None:
    for words in ((), ("push",), ("model", "init")):
        asked, usual = call(None, "help", *words), call(None, *words, "--help")
        assert (asked.exit_code, asked.stdout) == (0, usual.stdout)
    assert call(None, "help", "pusj").exit_code == 64


def test_a_plan_never_folds_or_cuts_the_name_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a_model_with_a_name_of_forty_characters_"
    monkeypatch.setenv("COLUMNS", "40")
    done = CliRunner().invoke(main, ["model", "plan", f"{name}=2MiB", "b=3MiB", "--top", "1"], prog_name="edgeai")
    assert done.exit_code == 0
    assert any(line.startswith(f"{name}  ") for line in done.stdout.splitlines()), done.stdout


def test_why_a_model_does_not_serve_is_told_where_the_table_has_no_room_for_it() -> None:
    row = {"name": "n" * 40, "version": "1", "state": "UNAVAILABLE", "reason": "its device is not plugged in"}
    for columns, times in ((60, 1), (200, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            assert models_table([row]).count(row["reason"]) == times


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("https://example.com/m.tflite",), "download it first (curl -O https://example.com/m.tflite)"),
        (("m.tflite", "m.tflite"), "push takes one file"),
        (("m.tflite", "--mean", "1", "--std", "nan"), "--std 'nan' must be finite"),
        (("m.tflite", "--mean", "inf", "--std", "1"), "--mean 'inf' must be finite"),
        (("m.tflite", "--input-format", "RGB"), "--input-format RGB: the model's pictures have 1 channel"),
        (("m.tflite", "--task", "pose"), "edgeai model init FILE"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    shutil.copy(DIGITS / "model.tflite", tmp_path / "m.tflite")
    monkeypatch.chdir(tmp_path)
    done = call(None, "push", *words)
    assert done.exit_code == 64, "75 would say that a daemon was asked"
    assert said in done.stderr


def test_a_refusal_of_the_daemon_names_the_file_of_the_model_not_where_it_was_staged(
    steered: Running, tmp_path: Path
) -> None:
    shutil.copy(DIGITS / "model.tflite", tmp_path / "m.tflite")
    done = call(steered.socket, "push", tmp_path / "m.tflite", "--task", "detect")
    assert done.exit_code == 65
    assert done.stderr.endswith("model.tflite: decoder ssd needs four outputs, the model has 1\n")
    assert ".staging" not in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("plan", "a=5GiB"), 64, "sizes are written 3.75MiB"),
        (("plan", PICTURE), 65, "is not a model file; a plan takes"),
        (("profile", PICTURE), 65, "is a PNG picture; a profile is of a .tflite file"),
        (("bundle", DIGITS, "-o", f"{PICTURE}/x"), 73, "x cannot be written: Not a directory"),
    ],
)
def test_the_toolkit_names_what_it_was_given(words: tuple[object, ...], status: int, said: str) -> None:
    done = call(None, "model", *words)
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr
