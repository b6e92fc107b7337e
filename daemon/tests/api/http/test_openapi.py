"""The served OpenAPI description holds: every route is in it, and real answers fit their schemas."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from edgeaid.daemon import routes

from ...support.daemon import Running

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")


@pytest.fixture(scope="module")
def document(daemon: Running) -> Any:
    return daemon.json("GET", "/edgeai/v1/openapi.json")[1]


def check(document: Any, method: Any, path: Any, answer: Any, status: str = "200") -> None:
    operation = document["paths"][path][method]
    reference = operation["responses"][status if status in operation["responses"] else "default"]
    schema = {**reference["content"]["application/json"]["schema"], "components": document["components"]}
    jsonschema.validate(answer, schema)


def test_every_route_is_described_with_the_role_it_needs(document: Any) -> None:
    described = {(m.upper(), p, o["x-role"]) for p, methods in document["paths"].items() for m, o in methods.items()}
    assert described == {(r.method, r.path, r.role.name.lower()) for r in routes().table()}
    names = [o["operationId"] for methods in document["paths"].values() for o in methods.values()]
    assert len(names) == len(set(names))


def test_answers_of_all_plain_get_routes_fit_their_schemas(daemon: Running, document: Any) -> None:
    for path, methods in document["paths"].items():
        if "get" not in methods or "application/json" not in methods["get"]["responses"]["200"]["content"]:
            continue
        concrete = path.replace("{m}", "digits").replace("{v}", "1")
        if "{" in concrete:
            continue
        status, answer = daemon.json("GET", concrete)
        assert status == 200, (concrete, answer)
        check(document, "get", path, answer)


def test_pictures_tensors_and_errors_fit_their_schemas(daemon: Running, document: Any, three: bytes) -> None:
    path = "/edgeai/v1/models/{m}/classify"
    check(document, "post", path, daemon.json("POST", path.replace("{m}", "digits"), three)[1])
    check(document, "post", path, daemon.json("POST", path.replace("{m}", "digits"), b"x")[1], "400")
    metadata = daemon.json("GET", "/v2/models/digits")[1]["inputs"][0]
    size = 1
    for dimension in metadata["shape"]:
        size *= dimension
    answer = daemon.json("POST", "/v2/models/digits/infer", {"inputs": [{**metadata, "data": [0] * size}]})[1]
    check(document, "post", "/v2/models/{m}/infer", answer)
    check(document, "post", "/v2/repository/index", daemon.json("POST", "/v2/repository/index")[1])


def test_events_stream_and_metrics_are_text(daemon: Running) -> None:
    with daemon.raw() as sock:
        sock.sendall(b"GET /edgeai/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while b"daemon-ready" not in data:
            data += sock.recv(65536)
    assert b"text/event-stream" in data
    event = json.loads(re.findall(rb"data: (\{.*\})", data)[0])
    assert {"number", "time", "kind", "message"} <= event.keys()
    status, headers, text = daemon.http("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    for line in text.decode().splitlines():
        assert line.startswith("#") or re.fullmatch(r'[a-z_]+(\{([a-z]+="[^"]*",?)*\})? [0-9.e+-]+', line), line
