"""What happens to devices, as events: for listeners, and for the journal with a MESSAGE_ID per kind."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from edgeaid.devices.ladder import Action


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Base: which device."""

    #: The kind of event, and its MESSAGE_ID in the journal (`journalctl MESSAGE_ID=...`): random, fixed for ever.
    kind: ClassVar[str]
    message_id: ClassVar[str]

    device: str

    def text(self) -> str:
        """One line for people."""
        raise TypeError(f"{type(self).__name__} has no text of its own")

    def fields(self) -> dict[str, str]:
        """Journal fields, without MESSAGE and MESSAGE_ID."""
        return {f"EDGEAI_{item.name.upper()}": str(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Added(DeviceEvent):
    """A device was plugged in, or was there at start."""

    kind = "device-added"
    message_id = "b6d5bc5925c8424f853c465634852817"

    hardware: str
    port: str
    usb_ids: str

    def text(self) -> str:
        return f"device {self.device}: {self.hardware} is plugged in ({self.usb_ids or 'PCIe'} at {self.port})"


@dataclass(frozen=True, slots=True)
class Removed(DeviceEvent):
    """A device left."""

    kind = "device-removed"
    message_id = "4908bea20130436ca3761b0b47febc65"

    hardware: str

    def text(self) -> str:
        return f"device {self.device}: {self.hardware} is gone"


@dataclass(frozen=True, slots=True)
class Reenumerated(DeviceEvent):
    """The same device came back under another id or number: firmware was loaded, or it was reset."""

    kind = "device-changed"
    message_id = "ac3eb5adf0a74145a8b5bee70a49dfae"

    before: str
    after: str

    def text(self) -> str:
        return f"device {self.device}: {self.before} became {self.after}"


@dataclass(frozen=True, slots=True)
class StateChanged(DeviceEvent):
    """A device's state changed."""

    kind = "device-state"
    message_id = "ce07b85b8b634d6a81704c6a0aa413b5"

    before: str
    state: str
    reason: str = ""

    def text(self) -> str:
        return f"device {self.device} is {self.state}{': ' + self.reason if self.reason else ''}"


@dataclass(frozen=True, slots=True)
class RungTried(DeviceEvent):
    """A rung of the recovery ladder."""

    kind = "recovery"
    message_id = "7527f8a0f8f74c9f9c51971eaf227b6f"

    rung: str
    attempt: int
    cause: str
    wait_s: float

    @classmethod
    def of(cls, device: str, action: Action) -> RungTried:
        """From the ladder's answer."""
        return cls(device, action.rung.value, action.attempt, action.cause, action.wait_s)

    def text(self) -> str:
        return f"device {self.device}: {self.rung}, attempt {self.attempt}, because {self.cause}"
