"""[scheduling] of the configuration becomes the rule of each device's queue."""

from __future__ import annotations

import asyncio

import pytest

from edgeaid import config
from edgeaid.errors import InvalidConfig
from edgeaid.scheduling.policy import ModelPolicy, Policy
from edgeaid.serving.dispatch import policy_of
from edgeaid.serving.plane import Plane


def test_without_settings_the_rule_is_the_default() -> None:
    assert policy_of(config.Config().scheduling) == Policy()


def test_settings_of_all_models_and_of_one_become_the_rule_of_a_devices_queue() -> None:
    table = {
        "burst": 3,
        "shed": False,
        "threshold": 2,
        "model": {"bird": {"timeout_seconds": 1, "starvation_seconds": 5}},
    }

    async def of_a_device() -> Policy:
        plane = Plane(config.from_table({"scheduling": table, "models": {"embedded": False}}))
        await plane.spawner.start()
        try:
            device = await plane.add_device(config.Device(id="cpu0", target="cpu"))
            return device.queue.policy
        finally:
            await plane.stop()

    policy = asyncio.run(of_a_device())
    assert (policy.burst, policy.shed, policy.deadlines) == (3, False, True)
    assert policy.of("bird/7") == ModelPolicy(1, 1.0, 5.0)
    assert policy.of("plant/1") == ModelPolicy(2, 0.0, 2.0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"burst": -1}, "scheduling.burst must not be below 0"),
        ({"threshold": 0}, "scheduling.threshold must be above 0"),
        ({"model": {"bird": {"starvation_seconds": 0}}}, "scheduling.model.bird.starvation_seconds must be above 0"),
        ({"timeout": 1}, "scheduling.timeout: unknown key"),
    ],
)
def test_settings_that_cannot_be_are_refused(table: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        config.from_table({"scheduling": table})
