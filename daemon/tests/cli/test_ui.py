"""The status page and `edgeai ui`: what a browser gets, and who else gets nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeaid.models.repository import EMBEDDED

from ..support.browser import WINDOWS
from ..support.daemon import Running
from .test_manners import COMMAND

PICTURE = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))[0]
SCENE = sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))[0]
CLASSIFY = "/edgeai/v1/models/digits/classify"


class Ui:
    """`edgeai ui` in a process of its own."""

    def __init__(self, daemon: Running) -> None:
        environment = {**os.environ, "EDGEAI_SOCKET": str(daemon.socket)}
        self.process = subprocess.Popen(
            [*COMMAND, "--json", "ui", "--no-browser"], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.address = str(json.loads(self.process.stdout.readline())["address"])
        self.origin, _, self.token = self.address.partition("/?token=")
        self.host = self.origin.removeprefix("http://")

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in named)
        for name, value in named.items():
            connection.putheader(name, value)
        if method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def cookie(self) -> str:
        """Spend the token."""
        status, headers, _ = self.ask("GET", f"/?token={self.token}")
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly" in headers["Set-Cookie"]
        assert "SameSite=Strict" in headers["Set-Cookie"]
        return headers["Set-Cookie"].partition(";")[0]


@pytest.fixture
def ui(daemon: Running) -> Iterator[Ui]:
    running = Ui(daemon)
    yield running
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 0, "Ctrl-C is its end"


def test_the_page_is_small_and_loads_nothing_from_elsewhere(daemon: Running) -> None:
    status, headers, body = daemon.http("GET", "/")
    text = body.decode()
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert len(body) < 30_000
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"].partition("style-src")[0]
    assert not re.search(r"""(src|href)\s*=|https?://|innerHTML|insertAdjacent|\son\w+=""", text)
    assert daemon.http("POST", "/")[0] == 405


def test_a_token_works_once_and_the_cookie_from_then_on(ui: Ui) -> None:
    assert ui.ask("GET", "/")[0] == 403
    assert ui.ask("GET", "/?token=wrong")[0] == 403
    assert ui.ask("GET", f"/?token={ui.token}", Origin="https://evil.example")[0] == 403
    assert ui.ask("GET", f"/?token={ui.token}", Host="evil.example")[0] == 421
    cookie = ui.cookie()
    assert ui.ask("GET", f"/?token={ui.token}")[0] == 403, "a second time"
    status, headers, body = ui.ask("GET", "/", Cookie=cookie)
    assert (status, b"<title>edgeaid" in body) == (200, True)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    answer = json.loads(ui.ask("POST", CLASSIFY, PICTURE.read_bytes(), Cookie=cookie, Origin=ui.origin)[2])
    assert answer["classes"][0]["label"] == PICTURE.stem[-1]


def test_another_host_or_origin_is_refused_even_with_the_cookie(ui: Ui) -> None:
    cookie = ui.cookie()
    port = ui.host.partition(":")[2]
    for host in (f"evil.example:{port}", f"localhost:{port}", "127.0.0.1", "", f"127.0.0.1:{port}.evil.example"):
        assert ui.ask("GET", "/edgeai/v1/models", Cookie=cookie, Host=host)[0] == 421, host
    for origin in ("https://evil.example", "null", "", f"http://localhost:{port}", f"{ui.origin}.evil.example"):
        assert ui.ask("GET", "/edgeai/v1/models", Cookie=cookie, Origin=origin)[0] == 403, origin
        assert ui.ask("POST", CLASSIFY, PICTURE.read_bytes(), Cookie=cookie, Origin=origin)[0] == 403, origin
    for other in ("", "edgeai=1", cookie + "x", cookie.partition("=")[0] + "=", ";;;=\xe9", "a" * 5000):
        assert ui.ask("GET", "/edgeai/v1/models", Cookie=other)[0] == 403, other


def test_only_what_the_page_needs_is_passed_on(ui: Ui) -> None:
    cookie = ui.cookie()
    for method, path in (
        ("POST", "/v2/repository/models/digits/unload"), ("POST", "/edgeai/v1/models/digits/rollback"),
        ("GET", "/v2/logging"), ("GET", "/edgeai/v1/models/../../v2/logging"), ("GET", "//evil.example/"),
        ("POST", "/edgeai/v1/models/a/../digits/classify"), ("POST", "/edgeai/v1/models/digits/classify\\x"),
    ):  # fmt: skip
        assert ui.ask(method, path, Cookie=cookie)[0] == 404, path
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ui.ask(method, "/edgeai/v1/models/digits", Cookie=cookie)[0] == 501, method
    assert ui.ask("POST", CLASSIFY, b"no picture", Cookie=cookie)[0] == 400, "the daemon's own words"


def test_a_daemon_that_went_away_is_said_so(start: Callable[..., Running]) -> None:
    daemon = start()
    ui = Ui(daemon)
    cookie = ui.cookie()
    daemon.stop()
    status, _, body = ui.ask("GET", "/edgeai/v1/models", Cookie=cookie)
    assert (status, "error" in json.loads(body)) == (503, True)
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(30) == 0


# --- in a real browser ----------------------------------------------------------------------------------------------


HOSTILE = '<img src=x onerror="document.title=1">&amp;\u202e</td><script>document.title=2</script>'


@pytest.fixture
def hostile(start: Callable[..., Running], tmp_path: Path) -> Running:
    """A daemon with a model whose description and labels are markup."""
    directory = tmp_path / "hostile" / "1"
    shutil.copytree(EMBEDDED / "digits" / "1", directory)
    text = (directory / "model.toml").read_text().replace('name = "digits"', 'name = "hostile"')
    told = f"description = {json.dumps(HOSTILE)}"
    text = re.sub(r"^description = .*$", lambda _: told, text, flags=re.MULTILINE)
    (directory / "model.toml").write_text(text)
    labels = next(directory.glob("*labels*.txt"))
    labels.write_text("".join(f"{n} {HOSTILE}\n" for n in range(10)))
    daemon = start()
    with daemon.client() as client:
        from edgeaid.models import pack

        client.push("hostile", pack.write(directory, tmp_path / "hostile.edgeai"))
    return daemon


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_the_page_shows_devices_models_and_answers_in_a_browser(
    browser: Any, hostile: Running, width: int, scheme: str, tmp_path: Path
) -> None:
    ui = Ui(hostile)
    try:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(ui.address)
        page.wait_for_selector("#models tr")
        assert page.url == f"{ui.origin}/", "the token is gone from the address"
        assert "cpu0" in page.inner_text("#devices")
        assert HOSTILE.replace("\u202e", "\ufffd") in page.text_content("#models"), "markup is shown as text"
        page.select_option("#model", "hostile")
        page.set_input_files("#file", PICTURE)
        page.wait_for_selector("#answer:not([hidden])")
        assert "<img src=x" in page.text_content("#results")
        page.select_option("#model", "digit-scenes")
        page.set_input_files("#file", SCENE)
        page.wait_for_selector("#times:has-text('digit-scenes/')")
        assert page.text_content("#results").strip()
        assert page.title() == "edgeaid"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        if shots := os.environ.get("EDGEAI_TEST_SCREENSHOTS"):
            page.screenshot(path=f"{shots}/page-{width}-{scheme}.png", full_page=True)
        assert not [c for c in complaints if "favicon" not in c], complaints
        page.close()
    finally:
        ui.process.send_signal(signal.SIGINT)
        ui.process.wait(30)
