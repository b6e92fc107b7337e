"""The daemon's configuration: one TOML file, every key optional, unknown keys refused."""

from __future__ import annotations

import dataclasses
import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .devices.ladder import TRIES, LadderPolicy
from .errors import InvalidConfig
from .scheduling.policy import Policy
from .tables import build, raising

log = logging.getLogger(__name__)


def _runtime_directory() -> Path:
    return Path(os.environ.get("RUNTIME_DIRECTORY", "/run/edgeai").split(":")[0])


@dataclass(frozen=True, slots=True)
class Server:
    """[server]"""

    #: HTTP on a Unix socket. Under socket activation the passed descriptor named "http" is used instead.
    socket: Path = field(default_factory=lambda: _runtime_directory() / "edgeaid.sock")
    #: Fast socket (SOCK_SEQPACKET); "" = none. Passed descriptor: "fast".
    fast_socket: str = ""
    #: gRPC on a Unix socket; "" = none. Needs the optional package edgeaid[grpc]. Passed descriptor: "grpc".
    grpc_socket: str = ""
    #: Role of everyone who may connect to the gRPC socket: all callers have the same. observe, infer or control.
    grpc_role: str = "infer"
    #: Name in the server metadata; some clients expect "triton".
    name: str = "edgeaid"
    #: Where pins of versions are kept across restarts; "" = not kept.
    state_directory: str = ""
    #: Seconds that requests under way get after SIGTERM.
    drain_seconds: float = 5.0
    #: Looking for an expected answer instead of sleeping, per request at most (see serving/poller.py); 0 = never.
    poll_microseconds: int = 200
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Tcp:
    """[tcp]: no TCP unless `listen` is set, then loopback only and with a token."""

    #: host:port, for example "127.0.0.1:8700"; the host must be a loopback address.
    listen: str = ""
    #: File with the token that clients send as `Authorization: Bearer ...`. Must not be readable by others.
    token_file: str = ""
    #: Role of a client that shows the token.
    role: str = "infer"


@dataclass(frozen=True, slots=True)
class Models:
    """[models]"""

    #: The first one is writable (push); the others are only read.
    repositories: tuple[Path, ...] = (Path("/var/lib/edgeai/models"), Path("/usr/share/edgeai/models"))
    #: Serve the models embedded in the package too.
    embedded: bool = True
    #: Load everything at start; else only what a client loads.
    load_all: bool = True
    #: Versions served of each model: "latest:N", "all" or "specific:1,3".
    versions: str = "latest:1"
    #: Exceptions by model name.
    version_policy: Mapping[str, str] = field(default_factory=dict)
    #: Public keys (ed25519) whose signatures count: 64 hexadecimal digits each, or a file that has them.
    trusted_keys: tuple[str, ...] = ()
    #: Take and load only models that one of `trusted_keys` signed. Models of the image, in repositories that are only
    #: read, are the image's matter.
    require_signature: bool = False
    #: A model whose worker dies so often without an answer between is quarantined; after a crash a hundred are due.
    quarantine_after: int = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]; bytes and seconds."""

    body_bytes: int = 64 << 20
    #: What bodies, and answers that are not read yet, may take together, on all sockets.
    buffer_bytes: int = 256 << 20
    #: The same of one user. Root and the daemon's own user have no limit of their own.
    buffer_bytes_per_user: int = 128 << 20
    #: Shared memory that clients of the fast socket have attached, and named regions, by size.
    region_bytes: int = 512 << 20
    region_bytes_per_user: int = 256 << 20
    bundle_bytes: int = 512 << 20
    json_depth: int = 100
    chunks: int = 65_536
    connections: int = 1024
    connections_per_user: int = 256
    #: A connection that sends nothing, a body that stalls or comes slower than 1 KiB/s, an answer that is not read.
    idle_seconds: float = 60.0
    #: Requests waiting per device; slots per model follow from it.
    queue: int = 64
    #: Of one user, all processes together; root, the daemon's own user and the role control have no such limit.
    queue_per_client: int = 48
    #: Deadline of a request that names none.
    request_seconds: float = 30.0
    #: Longest invoke before the worker counts as hung.
    invoke_seconds: float = 10.0
    #: Longest load and self-test of a model; on the CPU in a worker of its own, so that no other model waits for it.
    load_seconds: float = 60.0
    #: Longest self-test and warm-up of a new model on an accelerator, whose other models wait meanwhile.
    trial_seconds: float = 15.0
    picture_bytes: int = 32 << 20
    #: Processes that decode pictures at most; each takes about 40 MB.
    decoders: int = min(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class Access:
    """[access]: Unix groups per role. The daemon's own user and root have every role."""

    observe: tuple[str, ...] = ("edgeai", "edgeai-observe", "edgeai-infer", "edgeai-control")
    infer: tuple[str, ...] = ("edgeai", "edgeai-infer", "edgeai-control")
    control: tuple[str, ...] = ("edgeai-control",)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """[shared_memory]: Triton's named regions; off unless enabled, and the caller must own the region."""

    enabled: bool = False
    #: Of each user.
    max_regions: int = 32
    #: Of each region.
    max_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Dialects:
    """[dialects]: protocols of other programs, on every HTTP socket. Off unless set."""

    #: DeepStack: POST /v1/vision/detection.
    deepstack: bool = False
    #: DOODS: GET /detectors, POST /detect.
    doods: bool = False
    #: Model for clients that name none; "" = the only one that detects.
    model: str = ""


@dataclass(frozen=True, slots=True)
class Streams:
    """[streams]: cameras and files that are analysed continuously (docs/streams.md)."""

    #: Files with [stream.NAME] tables, *.toml; streams added by clients are kept in the state directory.
    directory: Path = Path("/etc/edgeai/streams.d")
    #: Streams at most; each is a process.
    limit: int = 32


#: The defaults of [scheduling].
_QUEUE: Final = Policy()


@dataclass(frozen=True, slots=True)
class ModelScheduling:
    """[scheduling.model.NAME]: when a device turns to this model."""

    #: Waiting requests that make a switch to the model worthwhile.
    threshold: int = _QUEUE.default.threshold
    #: Since the model last ran, or began to wait: after this any waiting request does. With 0 a threshold does nothing.
    timeout_seconds: float = _QUEUE.default.timeout
    #: Longest wait between two turns.
    starvation_seconds: float = _QUEUE.default.starvation


@dataclass(frozen=True, slots=True)
class Scheduling:
    """[scheduling]: when an accelerator turns from some models to others (docs/scheduling.md)."""

    #: Inferences after which others may take over although work waits; 0 = only when they must.
    burst: int = _QUEUE.burst or 0
    #: Leave early for the deadlines of other models' requests.
    deadlines: bool = _QUEUE.deadlines
    #: A request of better priority interrupts.
    preempt: bool = _QUEUE.preempt
    #: Requests that cannot be answered in time any more let all others pass.
    shed: bool = _QUEUE.shed
    #: An idle device ignores thresholds when no lane is ready.
    idle_rule: bool = _QUEUE.idle_rule
    #: Of models that have no table of their own.
    threshold: int = _QUEUE.default.threshold
    timeout_seconds: float = _QUEUE.default.timeout
    starvation_seconds: float = _QUEUE.default.starvation
    model: Mapping[str, ModelScheduling] = field(default_factory=dict)


#: The defaults of [recovery].
_LADDER: Final = LadderPolicy()


@dataclass(frozen=True, slots=True)
class Recovery:
    """[recovery]: what is tried when an accelerator fails, in which order, and how long is waited; seconds."""

    #: One name is one try: retry, reopen, usb-reset, authorized, port-power (docs/devices.md). A device leaves out what
    #: it does not have. Empty = straight to other devices.
    steps: tuple[str, ...] = tuple(str(tries.step) for tries in _LADDER.steps for _ in range(tries.attempts))
    #: Wait before a try of a step; the others have none.
    wait: Mapping[str, float] = field(
        default_factory=lambda: {str(tries.step): tries.wait_s for tries in _LADDER.steps if tries.wait_s}
    )
    #: A device that worked for so long starts at the first step again.
    settle_seconds: float = _LADDER.settle_s
    #: Wait after all steps failed, doubled each time ...
    first_wait_seconds: float = _LADDER.first_wait_s
    #: ... up to this; also the longest quarantine.
    longest_wait_seconds: float = _LADDER.longest_wait_s
    #: Leaving the bus more often than this ...
    flaps: int = _LADDER.flaps
    #: ... within this time is flapping ...
    flap_seconds: float = _LADDER.flap_window_s
    #: ... and quarantines the device for so long at first, then twice as long each time.
    quarantine_seconds: float = _LADDER.quarantine_s


@dataclass(frozen=True, slots=True)
class Device:
    """[[device]]: one worker process. Without any, one CPU worker runs, and accelerators that are found get theirs."""

    id: str = ""
    target: str = "cpu"
    #: Name in the backend's own terms ("usb:0", "/dev/ttyUSB0"); "" = first.
    device: str = ""
    #: Requests handed to the worker ahead of time; 0 = 2 for the CPU, 1 for devices that switch models at a cost.
    depth: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    server: Server = field(default_factory=Server)
    tcp: Tcp = field(default_factory=Tcp)
    models: Models = field(default_factory=Models)
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    shared_memory: SharedMemory = field(default_factory=SharedMemory)
    dialects: Dialects = field(default_factory=Dialects)
    streams: Streams = field(default_factory=Streams)
    recovery: Recovery = field(default_factory=Recovery)
    scheduling: Scheduling = field(default_factory=Scheduling)
    device: tuple[Device, ...] = ()
    #: Look for accelerators and serve on them as they come.
    discover: bool = True
    #: Seconds between looks where there is no udev.
    discover_seconds: float = 2.0


def load(path: Path) -> Config:
    """Read a configuration file; InvalidConfig says what is wrong and where."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidConfig(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    return from_table(table, str(path))


def from_table(table: Mapping[str, Any], where: str = "configuration") -> Config:
    """Build a Config from parsed TOML; InvalidConfig for unknown keys, wrong types and values out of range."""
    with raising(InvalidConfig, where):
        config: Config = build(Config, _renamed(table, where))
    if config.device:
        devices = tuple(d if d.id else dataclasses.replace(d, id=f"{d.target}{i}") for i, d in enumerate(config.device))
        if len({d.id for d in devices}) != len(devices):
            raise InvalidConfig(f"{where}: two [[device]] entries have the same id")
        config = dataclasses.replace(config, device=devices)
    for name, value in ((f.name, getattr(config.limits, f.name)) for f in dataclasses.fields(Limits)):
        if value <= 0:
            raise InvalidConfig(f"{where}: limits.{name} must be above 0")
    if config.discover_seconds <= 0:
        raise InvalidConfig(f"{where}: discover_seconds must be above 0")
    if not config.models.repositories:
        raise InvalidConfig(f"{where}: models.repositories is empty")
    for policy in (config.models.versions, *config.models.version_policy.values()):
        parse_policy(policy, where)
    for key, role in (("server.grpc_role", config.server.grpc_role), ("tcp.role", config.tcp.role)):
        if role not in ("observe", "infer", "control"):
            raise InvalidConfig(f"{where}: {key} {role!r} is none of observe, infer, control")
    if config.server.log_level not in ("debug", "info", "warning", "error"):
        raise InvalidConfig(
            f"{where}: server.log_level {config.server.log_level!r} is none of debug, info, warning, error"
        )
    if config.models.require_signature and not config.models.trusted_keys:
        raise InvalidConfig(f"{where}: models.require_signature needs models.trusted_keys: nothing could be accepted")
    _check_recovery(config.recovery, where)
    _check_scheduling(config.scheduling, where)
    return config


def _renamed(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The same with keys as they are called now."""
    recovery = table.get("recovery")
    if not isinstance(recovery, Mapping) or "rungs" not in recovery or "steps" in recovery:
        return table
    log.warning("%s: recovery.rungs is called recovery.steps now; the old name goes with version 0.2", where)
    return {**table, "recovery": {"steps" if key == "rungs" else key: value for key, value in recovery.items()}}


def _check_recovery(recovery: Recovery, where: str) -> None:
    for name in (*recovery.steps, *recovery.wait):
        if name not in TRIES:
            raise InvalidConfig(f"{where}: recovery: {name!r} is not a recovery step; known: {', '.join(TRIES)}")
    for name, value in recovery.wait.items():
        if value < 0:
            raise InvalidConfig(f"{where}: recovery.wait.{name} must not be below 0")
    for item in dataclasses.fields(recovery):
        value = getattr(recovery, item.name)
        if isinstance(value, int | float) and value <= 0:
            raise InvalidConfig(f"{where}: recovery.{item.name} must be above 0")


def _check_scheduling(scheduling: Scheduling, where: str) -> None:
    if scheduling.burst < 0:
        raise InvalidConfig(f"{where}: scheduling.burst must not be below 0")
    tables: list[tuple[str, Scheduling | ModelScheduling]] = [("scheduling", scheduling)]
    tables += [(f"scheduling.model.{name}", table) for name, table in scheduling.model.items()]
    for name, table in tables:
        if table.threshold < 1:
            raise InvalidConfig(f"{where}: {name}.threshold must be above 0")
        if table.timeout_seconds < 0:
            raise InvalidConfig(f"{where}: {name}.timeout_seconds must not be below 0")
        if table.starvation_seconds <= 0:
            raise InvalidConfig(f"{where}: {name}.starvation_seconds must be above 0")


def parse_policy(text: str, where: str = "version policy") -> tuple[str, tuple[int, ...]]:
    """("latest", (n,)), ("all", ()) or ("specific", versions)."""
    kind, _, rest = text.partition(":")
    numbers = tuple(int(n) for n in rest.split(",") if n.strip().isdecimal())
    if (
        (kind == "latest" and len(numbers) == 1 and numbers[0] > 0)
        or (kind == "all" and not rest)
        or (kind == "specific" and numbers)
    ):
        return kind, numbers
    raise InvalidConfig(f'{where}: version policy {text!r} is none of "latest:N", "all", "specific:1,2"')
