"""Wi-Fi starts when a radio appears, joins what the settings name, and nobody waits where there is none (the kernel's simulated radio)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from rig.link import Link, wait_for

UNIT = "wpa_supplicant@wlan0.service"
CONFIGURATION = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"


@pytest.fixture
def radio(guest: Link) -> Iterator[Link]:
    """A guest without a radio, to which one can be given with modprobe."""
    if guest.run("modprobe --dry-run mac80211_hwsim").code:
        pytest.skip("this image's kernel has no simulated radio (mac80211_hwsim)")
    yield guest
    guest.run(f"rm -f {CONFIGURATION}; modprobe -r mac80211_hwsim; systemctl reset-failed {UNIT}")


def plug_in(guest: Link) -> None:
    guest.run("modprobe mac80211_hwsim radios=1 && udevadm settle").check()
    assert guest.run("ls /sys/class/net/wlan0").code == 0


def state(guest: Link) -> str:
    return guest.run(["systemctl", "is-active", UNIT]).out.strip()


def test_without_a_radio_the_boot_ended_and_nothing_waits(guest: Link) -> None:
    assert guest.run("ls /sys/class/net").check().split().count("wlan0") == 0
    assert "wlan" not in guest.run("systemctl list-jobs --no-legend").check()
    assert guest.run("systemctl is-active multi-user.target").out.strip() == "active"
    assert state(guest) == "inactive"


def test_a_radio_without_settings_is_no_failure(radio: Link) -> None:
    plug_in(radio)
    wait_for(
        lambda: radio.run(f"systemctl show -P ConditionResult {UNIT}").out.strip() == "no", 60, "the skipped start"
    )
    assert state(radio) == "inactive"
    assert radio.run("systemctl --failed --no-legend").check().strip() == ""


def test_a_radio_with_settings_starts_the_supplicant_and_takes_it_along(radio: Link) -> None:
    radio.put(CONFIGURATION, b'network={\n\tssid="none"\n\tkey_mgmt=NONE\n}\n', 0o600)
    plug_in(radio)
    said = f"journalctl -b -o cat -u {UNIT}"
    wait_for(
        lambda: "Successfully initialized wpa_supplicant" in radio.run(said).out, 120, "the supplicant's first words"
    )
    time.sleep(10)
    assert state(radio) == "active", radio.run(said).out
    radio.run("modprobe -r mac80211_hwsim").check()
    wait_for(lambda: state(radio) not in ("active", "deactivating"), 120, f"{UNIT} to end with the radio")
    # It kills itself when it needs two seconds to end, which an emulated processor does: that is its fault and not the unit's.
    text = radio.run(said).out
    assert "Stopping" in text, text
    assert state(radio) == "inactive" or "Killing program forcefully" in text, text
