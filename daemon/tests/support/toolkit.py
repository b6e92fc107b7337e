"""The toolkit's verbs and the environments that they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.errors import Unsupported
from edgeaid.toolkit.convert import environments


def run(*arguments: object, code: int = 0) -> str:
    """What a verb of `edgeai model` prints; it has to end with this status."""
    result = CliRunner().invoke(model, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def need(name: str) -> Path:
    """The interpreter of an environment. Skips the test where it cannot be had."""
    try:
        return environments.python(name)
    except Unsupported as error:
        pytest.skip(str(error))
