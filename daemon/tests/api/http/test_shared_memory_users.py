"""Named shared memory of two users: each has its own names, regions and room; the role control sees all."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED

from ...support.daemon import Running
from ...support.memory import open_files
from ...support.users import OTHER, STRANGER, as_user, connect_as
from ...support.waiting import eventually

IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
SCORES = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.out.npy")
PLACE = "/v2/systemsharedmemory"
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    """A daemon that both users may ask: their connections are in root's group."""
    config = '[shared_memory]\nenabled = true\nmax_regions = 3\n[access]\ninfer = ["root"]\n'
    running = launch(tmp_path_factory.mktemp("regions"), config)
    yield running
    assert running.stop() == 0, running.log.read_text()


def user(server: Running, uid: int) -> Ask:
    """Asks as a user."""

    def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect_as(uid, server.socket)
        connection.request(method, path, body=b"" if body is None else json.dumps(body).encode())
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, json.loads(data) if data else None

    return ask


@pytest.fixture
def regions() -> Iterator[dict[int, Path]]:
    """A file of each user in /dev/shm with a picture at its beginning."""
    made = {}
    for uid in (STRANGER, OTHER):
        path = Path("/dev/shm") / f"edgeai-test-{os.getpid()}-{uid}"
        as_user(uid, partial(path.write_bytes, IMAGE.tobytes() + bytes(4096)))
        path.chmod(0o600)
        made[uid] = path
    yield made
    for path in made.values():
        path.unlink()


def region_of(path: Path) -> dict[str, object]:
    return {"key": f"/{path.name}", "offset": 0, "byte_size": path.stat().st_size}


def infer(region: str) -> dict[str, object]:
    """A request with its input and its output in a region."""
    given = {"shared_memory_region": region, "shared_memory_byte_size": IMAGE.nbytes}
    wanted = {"shared_memory_region": region, "shared_memory_byte_size": 10, "shared_memory_offset": IMAGE.nbytes}
    kind = {"int8": "INT8", "uint8": "UINT8"}[IMAGE.dtype.name]
    return {
        "inputs": [{"name": "image", "datatype": kind, "shape": list(IMAGE.shape), "parameters": given}],
        "outputs": [{"name": "scores", "parameters": wanted}],
    }


def test_two_users_have_the_same_name_for_regions_of_their_own(server: Running, regions: dict[int, Path]) -> None:
    for uid, file in regions.items():
        ask = user(server, uid)
        assert ask("POST", f"{PLACE}/region/data/register", region_of(file))[0] == 200
        assert [r["key"] for r in ask("GET", f"{PLACE}/status")[1]] == [f"/{file.name}"]
    assert user(server, STRANGER)("POST", "/v2/models/digits/infer", infer("data"))[0] == 200
    answers = {uid: path.read_bytes()[IMAGE.nbytes : IMAGE.nbytes + 10] for uid, path in regions.items()}
    assert np.abs(np.frombuffer(answers[STRANGER], SCORES.dtype).astype(int) - SCORES.ravel()).max() <= 2
    assert answers[OTHER] == bytes(10)
    assert user(server, STRANGER)("POST", f"{PLACE}/unregister")[0] == 200
    assert len(user(server, OTHER)("GET", f"{PLACE}/status")[1]) == 1
    assert user(server, OTHER)("POST", "/v2/models/digits/infer", infer("data"))[0] == 200
    assert user(server, OTHER)("POST", f"{PLACE}/unregister")[0] == 200


def test_nobody_sees_uses_or_releases_what_another_user_has(server: Running, regions: dict[int, Path]) -> None:
    owner, other = user(server, STRANGER), user(server, OTHER)
    assert owner("POST", f"{PLACE}/region/mine/register", region_of(regions[STRANGER]))[0] == 200
    assert other("GET", f"{PLACE}/status")[1] == []
    assert other("GET", f"{PLACE}/region/mine/status")[0] == 404
    assert other("POST", "/v2/models/digits/infer", infer("mine"))[0] == 404
    assert other("POST", f"{PLACE}/region/mine/unregister")[0] == 403
    assert other("POST", f"{PLACE}/unregister")[0] == 200
    assert other("POST", f"{PLACE}/region/theirs/register", region_of(regions[STRANGER]))[0] == 403
    assert owner("POST", "/v2/models/digits/infer", infer("mine"))[0] == 200
    assert [r["name"] for r in server.json("GET", f"{PLACE}/status")[1]] == ["mine"]
    assert server.json("POST", f"{PLACE}/region/mine/unregister")[0] == 200
    assert owner("GET", f"{PLACE}/status")[1] == []


def test_one_user_cannot_use_up_the_regions_of_another(server: Running, regions: dict[int, Path]) -> None:
    owner, other = user(server, STRANGER), user(server, OTHER)
    statuses = [
        owner("POST", f"{PLACE}/region/r{number}/register", region_of(regions[STRANGER]))[0] for number in range(4)
    ]
    assert statuses == [200, 200, 200, 413]
    assert other("POST", f"{PLACE}/region/r0/register", region_of(regions[OTHER]))[0] == 200
    for ask in (owner, other):
        assert ask("POST", f"{PLACE}/unregister")[0] == 200


def test_regions_count_by_size_and_closing_them_holds_up_nobody(
    start: Callable[..., Running], regions: dict[int, Path]
) -> None:
    limits = "[limits]\nregion_bytes_per_user = 3000000\n"
    daemon = start(limits + '[shared_memory]\nenabled = true\n[access]\ninfer = ["root"]\n')
    file = regions[STRANGER]
    os.truncate(file, 2 << 20)
    ask = user(daemon, STRANGER)
    assert ask("POST", f"{PLACE}/region/one/register", region_of(file))[0] == 200
    status, answer = ask("POST", f"{PLACE}/region/two/register", region_of(file))
    assert status == 503
    assert "shared memory" in answer["error"]
    file.unlink()  # the daemon's is the last descriptor now
    assert ask("POST", f"{PLACE}/unregister")[0] == 200
    eventually(lambda: not any(file.name in name for name in open_files(daemon.process.pid)))
    file.write_bytes(bytes(10))
    os.chown(file, STRANGER, -1)
    os.truncate(file, 2 << 20)
    assert ask("POST", f"{PLACE}/region/one/register", region_of(file))[0] == 200
