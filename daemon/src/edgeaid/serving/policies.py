"""Which versions of a model are served, by its version policy."""

from __future__ import annotations

from typing import Any

from .. import errors
from ..config import Models, parse_policy


def wanted(models: Models, name: str, versions: list[str], config: dict[str, Any]) -> list[str]:
    """Those of `versions` (newest first) to serve. `config`: an override of the model's configuration, which may bring
    a policy of its own. NotFound when none of the versions that the policy names is there.
    """
    kind, numbers = parse_policy(_policy_of(config) or models.version_policy.get(name, models.versions))
    if kind == "all":
        return versions
    if kind == "latest":
        return versions[: numbers[0]]
    chosen = [version for version in versions if int(version) in numbers]
    if not chosen:
        raise errors.NotFound(
            f"failed to load {name!r}: none of the versions {list(numbers)} is there, only {', '.join(versions)}"
        )
    return chosen


def _policy_of(config: dict[str, Any]) -> str:
    """Version policy of a ModelConfig override in our notation; "" when it has none."""
    policy = config.get("version_policy")
    if not isinstance(policy, dict):
        return ""
    if "all" in policy:
        return "all"
    if isinstance(policy.get("latest"), dict):
        return f"latest:{policy['latest'].get('num_versions', 1)}"
    if isinstance(policy.get("specific"), dict):
        return "specific:" + ",".join(str(v) for v in policy["specific"].get("versions", []))
    return ""
