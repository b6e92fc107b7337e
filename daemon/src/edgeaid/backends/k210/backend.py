"""A K210 board under MaixPy on a serial port: the agent runs there, kmodels v3 and v4 run on its KPU.

Options of `open` (all optional):
    baud         highest rate to use, default 1500000
    rx           bytes of the board's receive buffer after that, default 8192
    reset        DTR/RTS wiring that resets a silent board: "dan", "kd233", "goD"; default: lines left alone
    agent        path of the agent's source
    storage      directory on the board for models that are sent, default /flash (or /sd)
    connect_s    limit for finding the board, default 20
    recover_s    limit for bringing a lost board back within one call, default 15
Options of an artifact are in k210_plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from ...errors import (
    DeviceError,
    EdgeaiError,
    InvalidConfig,
    InvalidModel,
    InvalidRequest,
    NotFound,
)
from ..base import Array, DeviceFacts, ModelIO, Phases
from .boot import agent_source, connect
from .frames import Type
from .link import Link
from .messages import (
    E_FILE,
    E_MEMORY,
    E_REQUEST,
    E_SLOT,
    E_TRANSFER,
    BoardError,
    Result,
)
from .plan import Plan, decode_outputs, encode_input, input_head, plan
from .port import RESETS, LineLost, Port, find

#: kpu.load refuses more.
SLOTS: Final = 5
#: The agent leaves after 10 s without a frame; a silent one is noticed after this long.
KEEPALIVE: Final = 3.0
#: A camera whose results were not taken for this long is stopped.
UNWATCHED: Final = 5.0
#: Largest kmodel worth reading: flash holds 16 MiB.
MAX_FILE: Final = 16 << 20
#: An error of one of these numbers at load is the model's fault, not the line's.
MODEL_FAULTS: Final = frozenset({*range(2001, 2016), E_REQUEST, E_MEMORY, E_FILE})
_T = TypeVar("_T")


@dataclass(slots=True)
class _Loaded:
    slot: int
    plan: Plan
    #: Name on the board, or None for a model at a flash address.
    path: str | None
    data: bytes


class K210Backend:
    """Backend for target `k210`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._device = ""
        self._options: Mapping[str, Any] = {}
        self._models: dict[str, _Loaded] = {}
        self._streaming: str | None = None
        #: Monotonic time of the newest question for a camera's result.
        self._asked = 0.0
        self._lost = False
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        #: Sessions begun again, and seconds the last one took; shown in `health`.
        self.recoveries = 0
        self.recovery_s = 0.0

    # life

    def open(self, device: str, options: Mapping[str, Any]) -> DeviceFacts:
        """Find the board and start the agent. `device` = "", a port's path or "usb:1-1.3".

        Raises DeviceError when nothing answers, Unsupported without pyserial, InvalidConfig for a bad option.
        """
        if options.get("reset") and options["reset"] not in RESETS:
            raise InvalidConfig(f"k210: reset {options['reset']!r} is unknown; there are {', '.join(RESETS)}")
        if not 9600 <= int(options.get("baud", 1500000)) <= 5242880:
            raise InvalidConfig(f"k210: baud {options['baud']} is outside 9600 to 5242880")
        agent_source(str(options.get("agent", "")))  # missing: an error before anything is opened
        with self._lock:
            self.close()
            self._device, self._options = device, options
            link = self._link = self._connect(float(options.get("connect_s", 20.0)), ())
            self._stop.clear()
            self._keeper = threading.Thread(target=self._keep_alive, name="k210-keepalive", daemon=True)
            self._keeper.start()
            text = link.text()
            about = link.about
            facts = {
                "port": link.port.path,
                "baud": link.port.baud,
                "agent": text.get("agent", ""),
                "firmware": text.get("fw", ""),
                "free_heap": about.free_heap if about else 0,
                "kmodel_v4": about.v4 if about else None,
            }
            return DeviceFacts(f"MaixPy agent {text.get('agent', '?')}", f"K210 board at {link.port.path}", facts)

    def close(self) -> None:
        """End the session, so that the board's REPL is there for others."""
        self._stop.set()
        keeper, self._keeper = self._keeper, None
        if keeper and keeper is not threading.current_thread():
            keeper.join(5)
        with self._lock:
            link, self._link = self._link, None
            self._models.clear()
            self._streaming = None
            if link:
                with contextlib.suppress(EdgeaiError):
                    link.bye()
                link.port.close()

    def health(self) -> Mapping[str, Any]:
        """State of the line: rate, damaged stretches, repetitions, sessions begun again."""
        link = self._link
        if link is None:
            return {}
        return {
            "baud": link.port.baud,
            "bad_frames": link.line.decoder.bad,
            "resent": link.line.counters.resent,
            "recoveries": self.recoveries,
            "recovery_s": round(self.recovery_s, 3),
        }

    def _connect(self, timeout: float, first: tuple[int, ...]) -> Link:
        port = Port(find(self._device))
        options = self._options
        try:
            return connect(
                port,
                baud=int(options.get("baud", 1500000)),
                rx=int(options.get("rx", 8192)),
                reset=str(options.get("reset", "")),
                first=first,
                agent=agent_source(str(options.get("agent", ""))),
                timeout=timeout,
            )
        except BaseException:
            port.close()
            raise

    def _keep_alive(self) -> None:
        while not self._stop.wait(KEEPALIVE / 2):
            if not self._lock.acquire(blocking=False):
                continue  # busy: what it does keeps the agent awake
            try:
                link = self._link
                if self._streaming and time.monotonic() - self._asked > UNWATCHED:
                    self._end_stream()
                if link and not self._lost and time.monotonic() - link.line.heard > KEEPALIVE:
                    link.ping(2.0)
            except EdgeaiError:
                self._lost = True  # the next call brings the board back
            finally:
                self._lock.release()

    def _end_stream(self) -> None:
        if self._streaming and self._link:
            self._streaming = None
            with contextlib.suppress(EdgeaiError):  # a lost line shows itself in the next request
                self._link.end_stream()

    # recovery

    def _try(self, what: Callable[[Link], _T], limit: float) -> _T:
        """Do something on the board; when the line or the board is lost on the way, bring it back and do it again.

        A second loss, or one that cannot be healed within recover_s, is the caller's LineLost or DeviceError.
        """
        if self._link is None:
            raise InvalidRequest("open the k210 backend first")
        end = time.monotonic() + max(limit, float(self._options.get("recover_s", 15.0)))
        strange = 0
        while True:
            try:
                if self._lost:
                    self._recover(end)
                return what(self._link)
            except BoardError as error:
                # The agent lost what belongs to the session: it was restarted in between.
                strange += 1
                if error.code not in (E_SLOT, E_TRANSFER) or strange > 3 or time.monotonic() > end:
                    raise
                self._lost = True
            except LineLost:
                self._lost = True
                if time.monotonic() > end:
                    raise

    def _recover(self, end: float) -> None:
        """The same session if the agent still has it, else a new one with all models."""
        begin = time.monotonic()
        link = self._link
        assert link is not None  # noqa: S101  _try has seen it
        same = False
        self._streaming = None
        with contextlib.suppress(LineLost, BoardError):
            link.ping(min(0.6, max(0.1, end - begin)))
            same = self._same_session(link)
        if not same:
            rate = link.port.baud
            link.port.close()
            while True:
                left = end - time.monotonic()
                try:
                    self._link = self._connect(max(0.5, left), (rate,))
                    break
                except DeviceError:
                    if time.monotonic() + 0.1 > end:
                        raise
                    time.sleep(0.1)  # unplugged: the port comes back when the board does
            for model in self._models.values():
                self._place(self._link, model)
        self._lost = False
        self.recoveries += 1
        self.recovery_s = time.monotonic() - begin

    def _same_session(self, link: Link) -> bool:
        """Whether the agent still has our models: unloading a slot that is empty anyway says nothing, SETOUT does."""
        for model in self._models.values():
            for index, w, h, c in model.plan.set_outputs[:1]:
                link.request(Type.SETOUT, struct.pack("<BHHH", index, w, h, c), index=model.slot)
            if not model.plan.set_outputs:
                return False
        return True

    # models

    def load(self, key: str, artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Send a kmodel (or use the one at `address` in flash) and load it. InvalidModel when it cannot run there."""
        with self._lock:
            link = self._link
            if link is None or link.about is None:
                raise InvalidRequest("open the k210 backend before loading a model")
            try:
                if artifact.stat().st_size > MAX_FILE:
                    raise InvalidModel(f"{artifact.name} is larger than a board's flash")
                data = artifact.read_bytes()
            except OSError as error:
                raise InvalidModel(f"{artifact}: {error.strerror}") from None
            used = sum(m.plan.need for k, m in self._models.items() if k != key)
            free = max(1, link.about.free_heap - used) if link.about.free_heap else 0
            made = plan(artifact.name, data, options, free=free, v4=link.about.v4)
            self.unload(key)
            self._end_stream()  # its pictures would fill the line
            taken = {m.slot for m in self._models.values()}
            slot = next((s for s in range(SLOTS) if s not in taken), None)
            if slot is None:
                raise InvalidModel(f"the board holds {SLOTS} models already; unload one before {artifact.name}")
            storage = str(self._options.get("storage", "/flash")).rstrip("/")
            name = f"{storage}/e{hashlib.sha256(data).hexdigest()[:12]}.kmodel"
            model = _Loaded(slot, made, None if made.address else name, data)
            try:
                self._try(lambda link: self._place(link, model), 60.0)
            except BoardError as error:
                if error.code not in MODEL_FAULTS:
                    raise
                raise InvalidModel(f"the board refused {artifact.name}: {error}{_advice(error.code)}") from None
            self._models[key] = model
            return ModelIO(made.inputs, made.outputs, self._facts(model))

    def _facts(self, model: _Loaded) -> dict[str, Any]:
        where = model.path or f"{model.plan.address:#x}"
        facts = {"kmodel": model.plan.version, "slot": model.slot, "on_board": where, "board_bytes": model.plan.need}
        if model.plan.camera:
            facts["source"] = "camera"
        return facts

    def _place(self, link: Link, model: _Loaded) -> None:
        if model.path is None:
            where = struct.pack("<BI", 0, model.plan.address)
        else:
            self._store(link, model.path, model.data)
            where = b"\1" + model.path.encode()
        link.request(Type.LOAD, where, index=model.slot, timeout=20.0, slow=True)
        for index, w, h, c in model.plan.set_outputs:
            link.request(Type.SETOUT, struct.pack("<BHHH", index, w, h, c), index=model.slot)

    def _store(self, link: Link, path: str, data: bytes) -> None:
        """The file on the board, sent only when it is not there; older models of ours make room."""
        if link.stat(path) == (len(data), zlib.crc32(data)):
            return
        try:
            link.put_file(path, data)
        except BoardError as error:
            if error.code != E_FILE:
                raise
            directory = path.rpartition("/")[0]
            keep = {m.path for m in self._models.values()}
            for name in link.names(directory):
                full = f"{directory}/{name}"
                if name.startswith("e") and name.endswith(".kmodel") and full not in keep:
                    link.remove(full)
            link.put_file(path, data)

    def unload(self, key: str) -> None:
        """Free the model's memory on the board; the file stays there."""
        with self._lock:
            model = self._models.pop(key, None)
            if model is None or self._link is None:
                return
            if self._streaming == key:
                self._end_stream()
            with contextlib.suppress(EdgeaiError):
                self._link.request(Type.UNLOAD, index=model.slot)

    # inference

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Run once; a model on the camera has no inputs and gives the newest picture's result.

        A lost line is healed and the inference done again within recover_s; then DeviceError.
        """
        with self._lock:
            model = self._models.get(key)
            if model is None:
                raise NotFound(f"model {key!r} is not loaded on the K210 board")
            begin = time.perf_counter_ns()
            sent = begin
            if model.plan.camera:
                result = self._try(lambda link: self._shot(link, key, model), model.plan.timeout)
            else:
                number, data = encode_input(model.plan, inputs[0])
                head = input_head(model.plan, number, data)

                def once(link: Link) -> Result:
                    nonlocal sent
                    self._end_stream()
                    link.transfer(Type.INPUT, head, data, index=model.slot, timeout=60.0)
                    sent = time.perf_counter_ns()
                    limit, dog = model.plan.timeout, model.plan.watchdog_ms
                    return link.run(model.slot, model.plan.mask, timeout=limit, watchdog_ms=dog)

                result = self._try(once, model.plan.timeout)
            if len(result.data) != sum(model.plan.output_bytes):
                raise DeviceError(
                    f"the board answered {len(result.data)} bytes for {sum(model.plan.output_bytes)}; is the model at "
                    f"{self._facts(model)['on_board']} the one that was loaded?"
                )
            decode_outputs(model.plan, result.data, list(outputs))
            end = time.perf_counter_ns()
            kpu = min(1000 * result.kpu_us, end - sent)
            return Phases(sent - begin, kpu, end - sent - kpu)

    def _shot(self, link: Link, key: str, model: _Loaded) -> Result:
        if self._streaming != key:
            camera = model.plan.camera
            assert camera is not None  # noqa: S101  infer has looked
            link.stream(
                model.slot,
                model.plan.mask,
                model.plan.size,
                interval_ms=camera.interval_ms,
                mirror=camera.mirror,
                flip=camera.flip,
            )
            self._streaming = key
        self._asked = time.monotonic()
        return link.next_shot(model.plan.timeout)


def create() -> K210Backend:
    """A closed backend."""
    return K210Backend()


def _advice(code: int) -> str:
    if code == E_FILE:
        return "; write it to flash with a kfpkg and give its `address`, or set the option storage to /sd"
    if code in (2006, E_MEMORY):
        return "; the board's memory is full: use a smaller model or the minimum firmware"
    return ""
