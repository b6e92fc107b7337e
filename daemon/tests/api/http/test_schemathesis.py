"""Thousands of requests that Schemathesis makes of our OpenAPI description: what it allows is taken, the rest refused.

Schemathesis and what it needs go to an environment of their own in the tests' cache.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ...support.addresses import forwarded
from ...support.daemon import Running
from ...support.environments import environment

pytestmark = pytest.mark.slow

VERSION = "schemathesis==4.32.5"
#: Streams of events and pictures have no end; whoever registers CUDA memory is told 501, not implemented.
LEFT_OUT = r"/events$|/stream/|/cudasharedmemory/region/\{r\}/register$"
#: Bodies with a picture, a model, a source of pictures or freely named fields: no schema says which of them are good.
FILES = (
    r"^/detect$|^/v1/vision/|/(classify|detect|pose|segment)$|^/edgeai/v1/models/\{m\}(/versions/\{v\})?$"
    r"|^/edgeai/v1/streams/\{s\}$"
)


def run(server: Running, directory: Path, *options: str) -> str:
    """What Schemathesis reports."""
    program = environment(VERSION) / "bin" / "schemathesis"
    count = os.environ.get("EDGEAI_SCHEMATHESIS_EXAMPLES", "20")
    with forwarded(server) as address:
        fixed = ["--url", f"http://{address}", "--max-examples", count, "--request-timeout", "30", "--no-color"]
        phases = ["--phases", "examples,coverage,fuzzing", "--generation-database", "none"]
        done = subprocess.run(
            [str(program), "run", f"http://{address}/edgeai/v1/openapi.json", *fixed, *phases, *options],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
    print(done.stdout[done.stdout.find("= SUMMARY =") :])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_no_request_that_schemathesis_makes_is_answered_otherwise_than_described(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    server = start("[dialects]\ndeepstack = true\ndoods = true\n[shared_memory]\nenabled = true\n")
    run(server, tmp_path, "--exclude-path-regex", f"{LEFT_OUT}|{FILES}")
    run(server, tmp_path, "--include-path-regex", FILES, "--exclude-checks", "positive_data_acceptance")
    assert server.json("GET", "/v2/health/ready")[0] == 200
    assert "Traceback" not in server.log.read_text()
