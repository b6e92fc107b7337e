"""The rules of `edgeai model check` as data (`rules.toml`), and the device profiles their limits are filled from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidConfig, NotFound
from ...formats.edgetpu import rules as edgetpu_rules
from ...formats.k210 import kpu
from ..files import MIB

ERROR: Final = "error"
WARNING: Final = "warning"
NOTE: Final = "note"
SEVERITIES: Final = (ERROR, WARNING, NOTE)
TARGETS: Final = ("cpu", "edgetpu", "ncs", "ncs2", "k210")


@dataclass(frozen=True, slots=True)
class Rule:
    """A documented limit."""

    #: Such as NCS012.
    id: str
    severity: str
    title: str
    #: With {names} of Profile fields.
    limit: str
    source: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of the device that a model is checked for."""

    name: str = "default"
    #: CPU runtime, a key of op_versions.toml.
    runtime: str = "ai-edge-litert 2.3"
    #: Newest TensorFlow Lite runtime version that the device's runtime stands for.
    runtime_version: str = "2.20.0"
    edgetpu_runtime: int = edgetpu_rules.RUNTIME
    #: Bytes of parameters that usually find room.
    edgetpu_memory: int = round(6.9 * MIB)
    edgetpu_reshape: int = 1 << 17
    nncase: str = "0.2"
    kmodel_versions: tuple[int, ...] = (3, 4)
    kpu_ram: int = kpu.KPU_RAM
    #: 6 MiB less firmware (about 2 MiB) and the 512 KiB heap of MaixPy.
    k210_free: int = kpu.MAIN_RAM - (2 << 20) - (512 << 10)
    k210_flash: int = 8_388_608
    weights_range: float = 32.0
    ncsdk: str = "2"
    ncs_graph: int = 320 * 10**6
    ncs_layer: int = 100 * 10**6
    openvino: str = "2022.3"
    ir_versions: tuple[int, ...] = (10, 11)
    opset: int = 8


#: Profiles by name.
PROFILES: Final[dict[str, Profile]] = {
    p.name: p
    for p in (
        Profile(),
        Profile("tflite-runtime", runtime="tflite-runtime 2.14", runtime_version="2.14.0"),
        Profile("m5stickv", kmodel_versions=(3, 4)),
        Profile("maixpy-v3", kmodel_versions=(3,)),
        Profile("kendryte-sdk", kmodel_versions=(5,), nncase="1.9", k210_free=kpu.MAIN_RAM - (1 << 20)),
        Profile("ncsdk1", ncsdk="1"),
        Profile("ncsdk2", ncsdk="2"),
        Profile("openvino-2021.4", openvino="2021.4", ir_versions=(10,), opset=7),
        Profile("openvino-2022.3"),
    )
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a model breaks, and where."""

    rule: Rule
    #: Layer, tensor or file by the name people know; "" = the whole model.
    layer: str
    #: What was found.
    value: str
    #: What is allowed, filled in.
    limit: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What one model looks like to one target."""

    path: str
    #: As `formats.detect`.
    kind: str
    target: str
    violations: tuple[Violation, ...]
    #: Figures worth showing: operators per device, bytes.
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worst(self) -> str:
        """Severest finding, "" if there is none."""
        severities = {v.rule.severity for v in self.violations}
        return next((s for s in SEVERITIES if s in severities), "")


@cache
def rules() -> Mapping[str, Rule]:
    """All rules by number, in the order of the file."""
    table = tomllib.loads((files(__package__) / "rules.toml").read_text("utf-8"))
    return {
        number: Rule(number, r["severity"], r["title"], r["limit"], r["source"], r["remedy"])
        for number, r in table.items()
    }


@cache
def op_versions(runtime: str) -> Mapping[str, int]:
    """Highest version per builtin operator that a runtime registers; empty for a runtime that was not measured."""
    table = tomllib.loads((files(__package__) / "op_versions.toml").read_text("utf-8"))
    versions: Mapping[str, int] = table.get(runtime, {})
    return versions


class Findings:
    """Collects violations while a model is looked at."""

    __slots__ = ("_seen", "facts", "mapped", "profile", "violations")

    #: Per rule; a graph of thousands of layers may break a rule in each.
    LIMIT: Final = 50

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.violations: list[Violation] = []
        self.facts: dict[str, Any] = {}
        #: Edge TPU: operators of the first subgraph that its compiler would map, by index.
        self.mapped: frozenset[int] = frozenset()
        self._seen: dict[str, int] = {}

    def add(self, number: str, layer: str = "", value: object = "", limit: str | None = None) -> None:
        """Note that `layer` breaks rule `number` with `value`; `limit` replaces the rule's own text."""
        rule = rules()[number]
        count = self._seen[number] = self._seen.get(number, 0) + 1
        if count > self.LIMIT:
            return
        text = rule.limit.format(**{k: _text(v) for k, v in asdict(self.profile).items()}) if limit is None else limit
        self.violations.append(Violation(rule, layer, str(value), text))

    def has(self, number: str) -> bool:
        """Whether the rule was broken so far."""
        return number in self._seen

    def report(self, path: str, kind: str, target: str) -> Checked:
        """All findings, severest first."""
        order = {s: i for i, s in enumerate(SEVERITIES)}
        ranked = sorted(self.violations, key=lambda v: (order[v.rule.severity], v.rule.id))
        return Checked(path, kind, target, tuple(ranked), self.facts)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def profile(name: str) -> Profile:
    """A profile by name, or read from a TOML file with the fields of Profile. Raises NotFound or InvalidConfig."""
    if name in PROFILES:
        return PROFILES[name]
    path = Path(name)
    if not path.is_file():
        raise NotFound(f"no device profile {name!r}; there are {', '.join(PROFILES)}, or name a TOML file")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"device profile {path} cannot be read: {error}") from error
    base = PROFILES.get(values.pop("base", "default"), PROFILES["default"])
    known = {f.name: getattr(base, f.name) for f in fields(Profile)}
    for key, value in values.items():
        if key not in known:
            raise InvalidConfig(f"device profile {path}: unknown field {key!r}; known are {', '.join(known)}")
        wanted = tuple if isinstance(known[key], tuple) else type(known[key])
        if isinstance(value, list) and wanted is tuple and all(isinstance(v, int) for v in value):
            values[key] = tuple(value)
        elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif not isinstance(value, wanted) or isinstance(value, bool):
            raise InvalidConfig(f"device profile {path}: {key} = {value!r} should look like {known[key]!r}")
    return replace(base, **{"name": path.stem, **values})
