"""What the pages show is so: programs run, links lead somewhere, references are today's."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeaid.models.repository import EMBEDDED

from .support.daemon import Running

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "daemon" / "docs"
if not (DOCS / "python.md").is_file():
    pytest.skip("the pages are not beside the tests here", allow_module_level=True)
PROGRAMS = re.findall(r"^## (\d+\. [^\n]+)\n+```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S)
PAGES = sorted([TOP / "README.md", *DOCS.rglob("*.md"), *(TOP / "daemon" / "examples").glob("*.md")])


def test_there_are_ten_programs() -> None:
    assert len(PROGRAMS) == 10


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    """A daemon for the page's programs, with the files that they name beside it."""
    directory = tmp_path_factory.mktemp("python-page")
    running = launch(directory)
    for name, source in (
        ("three.png", sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))[0]),
        ("scene.png", sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))[0]),
        ("model.tflite", EMBEDDED / "digits" / "1" / "model.tflite"),
    ):
        shutil.copy(source, directory / name)
    yield running
    running.stop()


@pytest.mark.parametrize(("title", "program"), PROGRAMS, ids=[title for title, _ in PROGRAMS])
def test_a_program_of_the_python_page_runs(asked: Running, title: str, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=asked.directory, env={**os.environ, "EDGEAI_SOCKET": str(asked.socket)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout or title.startswith(("4.", "6."))
    if title.startswith("10."):
        assert done.stdout.startswith("not there:")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(TOP)) for page in PAGES])
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place.read_text()), f"{page}: {target}"


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


#: Python programs of the checkout that a page starts by their path, with another Python than the daemon's.
STARTED = sorted({path for page in PAGES for path in re.findall(r"(?<=--create\) )daemon/\S+\.py", page.read_text())})


@pytest.mark.parametrize("program", STARTED)
def test_a_program_that_a_page_starts_by_its_path_begins(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TOP / program, "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_pages_start_the_program_that_trains_a_model() -> None:
    assert STARTED == ["daemon/tests/toolkit/train_digits.py"]


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def links(page: Path) -> set[Path]:
    """Pages of this checkout that a page links to; of a directory, the page in it."""
    places = {(page.parent / path).resolve() for path in re.findall(r"\]\(([^)#\s:]+)", page.read_text())}
    return {file for p in places if (file := p / "README.md" if p.is_dir() else p).suffix == ".md" and file.is_file()}


def test_every_page_of_the_checkout_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = {TOP / "README.md"}
    while ahead:
        reached |= ahead
        ahead = {page for known in ahead for page in links(known)} - reached
    ours = ("daemon", "recipes-tests", "meta-edgeai", "kas", "scripts")
    pages = {
        page for name in ours for page in (TOP / name).rglob("*.md") if not {"build", ".venv-test"} & {*page.parts}
    }
    assert not pages - reached


def reference() -> Callable[[], dict[Path, str]]:
    """The pages that scripts/reference writes."""
    loader = importlib.machinery.SourceFileLoader("reference", str(TOP / "scripts" / "reference"))
    spec = importlib.util.spec_from_loader("reference", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    pages: Callable[[], dict[Path, str]] = module.pages
    return pages


def test_the_reference_pages_are_what_the_code_says() -> None:
    for path, text in reference()().items():
        assert path.read_text() == text, f"{path} is not up to date: run scripts/reference"


README = (TOP / "README.md").read_text() if (TOP / "README.md").is_file() else ""


def test_the_block_of_the_readme_can_be_pasted_whole(tmp_path: Path) -> None:
    block = re.search(r"can be pasted whole.*?```sh\n(.*?)```", README, re.S)
    assert block is not None
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, module in (("edgeai", "edgeaid.cli"), ("edgeaid", "edgeaid")):
        (directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (directory / name).chmod(0o755)
    script = block[1].replace(". .venv-demo/bin/activate", f'PATH="{directory}:$PATH"')
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"}
    environment.pop("EDGEAI_SOCKET", None)
    done = subprocess.run(
        ["bash", "-em"], input=script, cwd=TOP, env=environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("READY", "digit-5.png", "mine version 1", '"name":"mine"', "inat-bird", "mine is deleted"):
        assert word in done.stdout, done.stdout
    assert "edgeaid." not in done.stderr, "the daemon's log does not mix into the terminal"


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeaid.demo"], capture_output=True, text=True, cwd=tmp_path, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")  # what the daemon and its runtimes log is not mixed in
    shown = re.search(r"## What the demo prints\n```\n(.*?)```", README, re.S)
    assert shown is not None

    def still(line: str) -> str:
        """A line without what differs from run to run: times, versions, the processor."""
        line = re.sub(r"^edgeaid is ready after .*", "edgeaid is ready", line)
        return "times" if re.search(r"ms: prepare", line) else line.rstrip()

    printed = [still(line) for line in done.stdout.splitlines()]
    for line in shown[1].splitlines():
        wanted = still(line)
        assert wanted == "..." or any(p == wanted or p.startswith(wanted.removesuffix("...")) for p in printed), line
    assert (tmp_path / "edgeai-demo.png").read_bytes()[:4] == b"\x89PNG"


def test_the_demo_names_a_picture_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeaid.demo", "nofile.png"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (66, "demo: nofile.png: there is no such file\n")


def test_the_demo_names_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("hello")
    done = subprocess.run(
        [sys.executable, "-m", "edgeaid.demo", "notes.png"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 64
    assert "demo failed: notes.png: this is not a picture that can be read" in done.stderr
