"""Where a request for a model with several artifacts goes."""

from __future__ import annotations

from dataclasses import replace

from edgeaid.scheduling.placement import Availability, place

TPU = Availability("usb:1-1.4", "edgetpu", usable=True, free=True, run_s=0.005)
CPU = Availability("cpu", "cpu", usable=True, free=True, run_s=0.080)
NCS = Availability("usb:1-1.2", "ncs", usable=True, free=True, run_s=0.060)
TARGETS = ("edgetpu", "cpu", "ncs")


def devices(*available: Availability, remaining_s: float | None = None) -> list[str]:
    return [p.device for p in place(TARGETS, available, remaining_s=remaining_s)]


def test_the_fastest_free_device_is_first_and_the_rest_follow_the_manifest() -> None:
    assert devices(NCS, CPU, TPU) == ["usb:1-1.4", "cpu", "usb:1-1.2"]


def test_a_device_that_is_gone_is_left_out_and_comes_back_by_itself() -> None:
    gone = replace(TPU, usable=False)
    assert devices(gone, CPU, NCS) == ["usb:1-1.2", "cpu"]
    assert devices(TPU, CPU, NCS)[0] == "usb:1-1.4"


def test_a_short_queue_on_a_fast_device_beats_a_free_slow_one() -> None:
    busy = replace(TPU, free=False, wait_s=0.010)
    assert devices(busy, CPU)[0] == "usb:1-1.4"
    swamped = replace(TPU, free=False, wait_s=0.300)
    assert devices(swamped, CPU) == ["cpu", "usb:1-1.4"]


def test_devices_that_would_be_too_late_come_last_but_stay() -> None:
    assert devices(TPU, CPU, NCS, remaining_s=0.070) == ["usb:1-1.4", "usb:1-1.2", "cpu"]
    assert devices(CPU, NCS, remaining_s=0.010) == ["usb:1-1.2", "cpu"]


def test_a_device_never_measured_counts_as_the_fastest_so_the_manifest_decides() -> None:
    fresh = replace(TPU, run_s=None)
    assert devices(fresh, CPU)[0] == "usb:1-1.4"
    fresh = replace(NCS, run_s=None)
    assert devices(TPU, fresh)[0] == "usb:1-1.4"


def test_a_target_without_artifact_is_ignored_and_no_device_gives_nothing() -> None:
    assert place(("cpu",), [TPU]) == ()
    assert place(("cpu",), [replace(CPU, usable=False)]) == ()


def test_two_sticks_of_one_kind_share_the_work() -> None:
    other = replace(TPU, device="usb:1-1.3")
    assert devices(replace(TPU, free=False, wait_s=0.005), other)[0] == "usb:1-1.3"
