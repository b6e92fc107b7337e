"""Digests of model files are the same whoever computes them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from edgeaid.models import digests

LESS_THAN_OPENSSL = """
import sys
def loaded():
    return "libcrypto" in open("/proc/self/maps").read()
before = loaded()  # by a measurement of coverage, say
from edgeaid.__main__ import without_openssl
with without_openssl():
    from edgeaid.models import digests
path = sys.argv[1]
with open(path, "rb") as stream:
    print(digests.of_file(stream))
whole = digests.sha1(int(sys.argv[2]))
whole.update(open(path, "rb").read())
print(whole.hexdigest())
print(loaded() > before)
"""


@pytest.mark.parametrize("size", [0, 1, digests.LARGE - 1, digests.LARGE, 3 * digests.LARGE + 17])
def test_a_digest_is_the_same_with_and_without_openssl(tmp_path: Path, size: int) -> None:
    file = tmp_path / "model"
    data = bytes(range(251)) * (size // 251 + 1)
    file.write_bytes(data[:size])
    done = subprocess.run(
        [sys.executable, "-c", LESS_THAN_OPENSSL, str(file), str(size)], capture_output=True, text=True, check=True
    )
    sha256, sha1, loaded = done.stdout.split()
    assert sha256 == hashlib.sha256(data[:size]).hexdigest()
    assert sha1 == hashlib.sha1(data[:size], usedforsecurity=False).hexdigest()
    assert size >= digests.LARGE or loaded == "False"  # a small model does not cost OpenSSL's memory
    with file.open("rb") as stream:
        assert digests.of_file(stream) == sha256
