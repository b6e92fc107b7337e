"""What the pages show is so: programs run, links lead somewhere, references are today's."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeaid.models.repository import EMBEDDED

from .support.daemon import Running

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "daemon" / "docs"
PROGRAMS = re.findall(r"^## (\d+\. [^\n]+)\n+```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S)
PAGES = sorted([TOP / "README.md", *DOCS.rglob("*.md"), *(TOP / "daemon" / "examples").glob("*.md")])


def test_there_are_ten_programs() -> None:
    assert len(PROGRAMS) == 10


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Running:
    """A daemon for the page's programs, with the files that they name beside it."""
    folder = tmp_path_factory.mktemp("python-page")
    running = launch(folder)
    for name, source in (
        ("three.png", sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))[0]),
        ("scene.png", sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))[0]),
        ("model.tflite", EMBEDDED / "digits" / "1" / "model.tflite"),
    ):
        shutil.copy(source, folder / name)
    return running


@pytest.mark.parametrize(("title", "program"), PROGRAMS, ids=[title for title, _ in PROGRAMS])
def test_a_program_of_the_python_page_runs(asked: Running, title: str, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=asked.folder, env={**os.environ, "EDGEAI_SOCKET": str(asked.socket)},
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


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


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
