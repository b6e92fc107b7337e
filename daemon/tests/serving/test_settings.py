"""Trace and log settings that clients change."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from edgeaid.errors import InvalidRequest
from edgeaid.serving.settings import LOG_DEFAULTS, TRACE_DEFAULTS, Settings


@pytest.mark.parametrize("model", ["", "digits"])
@pytest.mark.parametrize(
    "wrong",
    [{"trace_count": "-2"}, {"trace_rate": "9" * 5000}, {"trace_level": ["ALL"]}, {"colour": 1}, {"trace_file": "/x"}],
)
def test_a_wrong_trace_setting_changes_none_of_those_before_it(model: str, wrong: dict[str, Any]) -> None:
    settings = Settings()
    with pytest.raises(InvalidRequest):
        settings.set_trace({"trace_level": ["TIMESTAMPS"], "trace_rate": "7", **wrong}, model)
    assert settings.trace_of(model) == TRACE_DEFAULTS
    assert not settings.tracing


def test_a_model_without_overrides_is_not_asked_about_again() -> None:
    settings = Settings()
    settings.set_trace({"trace_level": ["TIMESTAMPS"]}, "digits")
    assert settings.tracing
    settings.set_trace({"trace_level": None}, "digits")
    assert not settings.tracing


@pytest.mark.parametrize("wrong", [{"log_file": "/etc/passwd"}, {"log_warning": "no"}, {"log_colour": True}])
def test_a_wrong_log_setting_changes_none_of_those_before_it(wrong: dict[str, Any]) -> None:
    settings, level = Settings(), logging.getLogger().level
    with pytest.raises(InvalidRequest):
        settings.set_logging({"log_info": False, **wrong})
    assert settings.logging == LOG_DEFAULTS
    assert logging.getLogger().level == level
