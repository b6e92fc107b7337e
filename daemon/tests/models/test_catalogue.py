"""Pulled models are what the catalogue says, byte for byte, or are not there at all."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeaid.errors import (
    AlreadyExists,
    EdgeaiError,
    InvalidModel,
    NotFound,
    TooLarge,
    Unavailable,
)
from edgeaid.formats.labels import parse
from edgeaid.models import manifest as manifests
from edgeaid.models.catalogue import Entry, File, load, pull
from edgeaid.models.repository import Repository
from edgeaid.models.rules import OutputRules, PictureRules
from edgeaid.vision.preprocess import decode, to_tensor
from edgeaid.vision.results import Classification, Segmentation

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))

CONTENT = bytes(range(256)) * 1000
LABELS = b"cat\ndog\n"


def entry(model: File, labels: File | None = None) -> Mapping[str, Entry]:
    return {
        "tiny": Entry(
            name="tiny",
            task="classify",
            description='A "quoted" \\ model',
            license="MIT",
            repository="someone/models",
            commit="0" * 40,
            artifacts={"cpu": model},
            labels=labels,
            input={"resize": "crop", "mean": [1.5], "std": [2.0]},
            output={"decoder": "classification"},
        )
    }


def known(path: str, content: bytes) -> File:
    return File(path, hashlib.sha256(content).hexdigest(), bytes=len(content))


GOOD = entry(known("a/model.tflite", CONTENT), known("labels.txt", LABELS))


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    directory = tmp_path / "mirror"
    (directory / "a").mkdir(parents=True)
    (directory / "a" / "model.tflite").write_bytes(CONTENT)
    (directory / "labels.txt").write_bytes(LABELS)
    return directory


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a directory; `broken` announces more than it sends, `error` fails, `away` leaves the web."""

    def do_GET(self) -> None:
        if self.path.startswith("/broken/"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        elif self.path.startswith("/error/"):
            self.send_error(503)
        elif self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def web(mirror: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def left_behind(repository: Path) -> list[str]:
    return sorted(str(p.relative_to(repository)) for p in repository.rglob("*") if p.is_file())


def test_the_catalogue_describes_every_model_well_enough_to_be_loaded() -> None:
    entries = load()
    assert len(entries) >= 15
    for name, entry in entries.items():
        manifests.check_name(name)
        assert entry.task in manifests.TASKS
        assert set(entry.artifacts) <= set(manifests.TARGETS)
        assert entry.license in {"Apache-2.0", "MIT"}
        assert len(entry.commit) == 40
        assert PictureRules.from_table(entry.input or {})
        assert OutputRules.from_table(entry.output or {"decoder": "none"})
        assert len({file.name for file in entry.files()}) == len(entry.files())
        for file in entry.files():
            assert len(file.sha256) == 64 or len(file.git) == 40
            assert entry.url(file).startswith("https://raw.githubusercontent.com/")
    assert list(entries["mobilenet-v1-0.25-128"].artifacts) == ["edgetpu", "cpu"]
    assert {"detect", "classify", "segment", "embed"} <= {entry.task for entry in entries.values()}


def test_every_known_file_has_the_digest_of_the_shared_data(shared_data: Path) -> None:
    lines = [line.split() for line in (shared_data / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    digests = set(sums.values())
    checked = [file for entry in load().values() if entry.tested for file in entry.files() if file.sha256 in digests]
    assert len(checked) >= 10
    for file in checked:
        assert sums[f"coral/{file.path}"] == file.sha256


@pytest.mark.parametrize("name", ["mobilenet-v1-0.25-128", "mobilenet-v1-0.5-160-pair", "mobilenet-v1-embedding"])
def test_a_real_model_is_pulled_from_a_directory_with_all_its_artifacts(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    where = pull(name, tmp_path / "models", mirror=str(shared_data / "coral"))
    assert where == tmp_path / "models" / name / "1"
    stored = Repository([tmp_path / "models"]).find(name, "1")
    assert [a.target for a in stored.manifest.artifacts] == ["edgetpu", "cpu"]
    for artifact in stored.manifest.artifacts:
        assert hashlib.sha256((where / artifact.file).read_bytes()).hexdigest() == artifact.sha256
    if stored.manifest.labels_file:
        assert (where / stored.manifest.labels_file).is_file()


def test_only_the_wanted_target_is_fetched(shared_data: Path, tmp_path: Path) -> None:
    where = pull("mobilenet-v2-1.0-224", tmp_path, mirror=str(shared_data / "coral"), targets=["cpu"])
    assert sorted(p.name for p in where.iterdir()) == [
        "imagenet_labels.txt",
        "mobilenet_v2_1.0_224_quant.tflite",
        "model.toml",
    ]


def test_the_environment_names_the_mirror(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAI_MODEL_MIRROR", str(mirror))
    where = pull("tiny", tmp_path / "m", catalogue=GOOD)
    assert (where / "model.tflite").read_bytes() == CONTENT
    text = manifests.parse((where / "model.toml").read_bytes(), "tiny")
    assert text.description == 'A "quoted" \\ model'
    assert text.picture is not None
    assert text.picture.mean == (1.5,)
    assert text.labels_file == "labels.txt"
    assert (where / "labels.txt").read_bytes() == LABELS


def test_a_mirror_may_keep_files_under_owner_and_name(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "big" / "someone").mkdir(parents=True)
    mirror.rename(tmp_path / "big" / "someone" / "models")
    assert pull("tiny", tmp_path / "m", mirror=str(tmp_path / "big"), catalogue=GOOD).is_dir()


@pytest.mark.parametrize("prefix", ["", "/", "/moved"])
def test_a_mirror_on_the_web_works_and_redirects_are_followed(web: str, tmp_path: Path, prefix: str) -> None:
    seen: list[tuple[int, int]] = []
    where = pull("tiny", tmp_path / "m", mirror=web + prefix, catalogue=GOOD, progress=lambda *step: seen.append(step))
    assert (where / "model.tflite").read_bytes() == CONTENT
    total = len(CONTENT) + len(LABELS)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_a_second_pull_is_the_next_version(mirror: Path, tmp_path: Path) -> None:
    for version in ("1", "2"):
        assert pull("tiny", tmp_path / "m", mirror=str(mirror), catalogue=GOOD).name == version


def corrupted(path: str = "a/model.tflite") -> File:
    return known(path, CONTENT[:-1] + b"x")


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (corrupted(), InvalidModel),
        (File("a/model.tflite", hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT) + 1), Unavailable),
        (File("a/model.tflite", hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT) - 1), TooLarge),
        (File("a/model.tflite", git="0" * 40), InvalidModel),
        (known("a/missing.tflite", CONTENT), NotFound),
    ],
    ids=["corrupted", "truncated", "longer", "wrong-blob", "missing"],
)
@pytest.mark.parametrize("way", ["directory", "web"])
def test_a_wrong_file_is_refused_and_nothing_stays_behind(
    mirror: Path, web: str, tmp_path: Path, file: File, error: type[EdgeaiError], way: str
) -> None:
    with pytest.raises(error):
        pull("tiny", tmp_path / "m", mirror=web if way == "web" else str(mirror), catalogue=entry(file))
    assert left_behind(tmp_path / "m") == []
    assert Repository([tmp_path / "m"]).names() == []


def test_a_blob_id_is_as_good_a_check_as_a_digest(mirror: Path, tmp_path: Path) -> None:
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT, usedforsecurity=False).hexdigest()
    where = pull("tiny", tmp_path / "m", mirror=str(mirror), catalogue=entry(File("a/model.tflite", git=blob)))
    parsed = manifests.parse((where / "model.toml").read_bytes(), "tiny")
    assert parsed.artifacts[0].sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("prefix", "text"),
    [("/broken", "try again"), ("/error", "answers 503"), ("/away", "answers 302"), ("/nothing", "does not exist")],
)
def test_a_failing_server_is_reported_and_nothing_stays_behind(
    web: str, tmp_path: Path, prefix: str, text: str
) -> None:
    with pytest.raises(EdgeaiError, match=text):
        pull("tiny", tmp_path / "m", mirror=web + prefix, catalogue=GOOD)
    assert left_behind(tmp_path / "m") == []


def test_an_unreachable_server_says_how_to_name_a_mirror(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="EDGEAI_MODEL_MIRROR"):
        pull("tiny", tmp_path / "m", mirror="http://127.0.0.1:9", catalogue=GOOD)


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"inat-bird"):
        pull("nothing", tmp_path)
    with pytest.raises(NotFound, match="has no artifact for ncs"):
        pull("tiny", tmp_path, catalogue=GOOD, targets=["ncs"])


def test_a_place_that_cannot_be_written_is_reported(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        pull("tiny", tmp_path / "file", mirror=str(mirror), catalogue=GOOD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = 2",
        "schema = 1",
        'schema = 1\n[source.a]\n[[model]]\nname = "x"\nsource = "b"',
        "no toml",
        'schema = 1\n[source.a]\nrepository = "r"\ncommit = "c"\nlicense = "MIT"\n[[model]]\nname = "x"\nsource = "a"\n'
        'task = "other"\ndescription = ""\n[model.artifacts]\ncpu = { path = "../x", sha256 = "0" }',
    ],
)
def test_what_is_no_catalogue_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InvalidModel):
        load(tmp_path / "c.toml")


def test_a_taken_version_is_never_overwritten(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull("tiny", tmp_path / "m", mirror=str(mirror), catalogue=GOOD)
    monkeypatch.setattr(Repository, "next_version", lambda *_: "1")
    with pytest.raises(AlreadyExists):
        pull("tiny", tmp_path / "m", mirror=str(mirror), catalogue=GOOD)
    assert (tmp_path / "m" / "tiny" / "1" / "model.tflite").read_bytes() == CONTENT


TESTED = [name for name, entry in load().items() if entry.tested]


@pytest.mark.parametrize("name", TESTED)
def test_what_is_called_tested_runs_on_a_real_picture_as_its_manifest_says(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("ai_edge_litert", reason="the CPU runtime is not installed")
    import evaluate

    coral = shared_data / "coral"
    where = pull(name, tmp_path, mirror=str(coral), targets=["cpu"])
    described = manifests.parse((where / "model.toml").read_bytes(), name)
    runner = evaluate.Runner(where / described.artifacts[0].file)
    assert described.picture is not None
    assert described.output is not None
    if described.task == "embed":
        tensors = []
        for picture in ("cat.bmp", "bird.bmp"):
            tensors.append(np.zeros(runner.input.shape, np.uint8))
            to_tensor((coral / picture).read_bytes(), runner.input, described.picture, tensors[-1])
        assert (runner.run(tensors[0]) != runner.run(tensors[1])).any()
        return
    labels = parse((where / described.labels_file).read_text()).names
    answer = runner.ask(decode((coral / "bird.bmp").read_bytes()), described.picture, described.output, labels)
    assert isinstance(answer, Classification | Segmentation)
    seen = [c.label.lower() for c in answer.classes]
    assert any("chickadee" in label or label == "bird" for label in seen[:2])
