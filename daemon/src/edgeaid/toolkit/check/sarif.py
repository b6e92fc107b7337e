"""Reports as SARIF 2.1.0 (docs.oasis-open.org/sarif), which code hosts show beside a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from .rules import Checked, Violation, rules

_LEVELS: Final = {"error": "error", "warning": "warning", "note": "note"}


def sarif(reports: Sequence[Checked], version: str) -> dict[str, Any]:
    """One SARIF log with one run."""
    used = sorted({v.rule.id for r in reports for v in r.violations})
    index = {number: i for i, number in enumerate(used)}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "edgeai model check", "version": version, "rules": [_rule(n) for n in used]}
                },
                "results": [
                    {
                        "ruleId": v.rule.id,
                        "ruleIndex": index[v.rule.id],
                        "level": _LEVELS[v.rule.severity],
                        "message": {"text": _message(report.target, v)},
                        "locations": [
                            {
                                "physicalLocation": {"artifactLocation": {"uri": _address(report.path)}},
                                "logicalLocations": [{"name": v.layer, "kind": "layer"}] if v.layer else [],
                            }
                        ],
                        "properties": {"target": report.target, "value": v.value, "limit": v.limit},
                    }
                    for report in reports
                    for v in report.violations
                ],
            }
        ],
    }


def _address(path: str) -> str:
    return quote(path.replace("\\", "/"))


def _rule(number: str) -> dict[str, Any]:
    rule = rules()[number]
    return {
        "id": number,
        "name": rule.title,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.title}. Limit: {rule.limit}. Source: {rule.source}."},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _message(target: str, v: Violation) -> str:
    where = f" in {v.layer}" if v.layer else ""
    return f"{target}: {v.rule.title}{where}: {v.value or 'broken'} (limit: {v.limit}). {v.rule.remedy}"
