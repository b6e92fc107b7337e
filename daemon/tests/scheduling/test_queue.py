"""The simple path of a device's queue: one lane, no switch costs."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.errors import QueueFull
from edgeaid.scheduling.queue import DeviceQueue, Job

from ..support.examples import examples


def job(
    client: str = "a", *, priority: int = 0, deadline: float | None = None, at: float = 0.0, model: str = "m/1"
) -> Job:
    return Job(model, model, client, priority, deadline, at)


def drain(queue: DeviceQueue, now: float = 0.0) -> list[Job]:
    jobs = []
    while (taken := queue.take(now)) is not None:
        jobs.append(taken)
    return jobs


def fill(queue: DeviceQueue, *jobs: Job, now: float = 0.0) -> None:
    for one in jobs:
        queue.push(one, now)


def test_jobs_of_one_client_leave_in_the_order_they_came() -> None:
    queue = DeviceQueue()
    jobs = [job() for _ in range(5)]
    fill(queue, *jobs)
    assert drain(queue) == jobs
    assert queue.take(0.0) is None


def test_a_client_that_floods_does_not_delay_another_by_more_than_one_job() -> None:
    queue = DeviceQueue()
    flood = [job("flood") for _ in range(10)]
    polite = [job("polite") for _ in range(2)]
    fill(queue, *flood, *polite)
    assert [one.client for one in drain(queue)][:4] == ["flood", "polite", "flood", "polite"]


def test_priority_one_is_served_first_and_zero_means_the_default_level() -> None:
    queue = DeviceQueue()
    low, default, high = job(priority=200), job(priority=0), job(priority=1)
    same = job(priority=queue.policy.default_priority)
    fill(queue, low, default, same, high)
    assert drain(queue) == [high, default, same, low]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue = DeviceQueue(capacity=4)
    fill(queue, *(job() for _ in range(4)))
    taken = queue.take(0.0)
    assert taken is not None
    queue.finished(taken, 0.5, run_s=0.5)
    queue.push(job(), 0.5)
    with pytest.raises(QueueFull, match="all 4 places") as caught:
        queue.push(job(), 0.5)
    assert caught.value.retry_after == pytest.approx(4 * 0.5)
    assert queue.snapshot()["refused"] == 1


def test_one_client_cannot_take_more_than_its_share_of_the_places() -> None:
    queue = DeviceQueue(capacity=8, per_client=2)
    fill(queue, job("a"), job("a"))
    with pytest.raises(QueueFull, match="its share"):
        queue.push(job("a"), 0.0)
    queue.push(job("b"), 0.0)
    assert queue.take(0.0) is not None
    queue.push(job("a"), 0.0)
    assert len(drain(queue)) == 3
    assert not queue._clients


def test_clients_of_one_user_have_one_share_and_one_turn() -> None:
    queue = DeviceQueue(per_client=3)
    many, other = [job("a1"), job("a2"), job("a3")], job("b")
    for one in many:
        one.user = "a"
    other.user = "b"
    fill(queue, *many, other)
    extra = job("a4")
    extra.user = "a"
    with pytest.raises(QueueFull, match="this user has 3 requests"):
        queue.push(extra, 0.0)
    assert drain(queue) == [many[0], other, many[1], many[2]]
    assert not queue._clients


def test_privileged_jobs_go_in_above_share_and_capacity() -> None:
    queue = DeviceQueue(capacity=8, per_client=8)
    fill(queue, *(job("a") for _ in range(8)))
    first, second = job("root"), job("root")
    first.privileged = second.privileged = True
    queue.push(first, 0.0)
    with pytest.raises(QueueFull, match="all 8 places"):
        queue.push(second, 0.0)
    assert queue.cancel(first)
    assert len(drain(queue)) == 8


def test_jobs_past_their_deadline_are_handed_out_by_expire_and_never_by_take() -> None:
    queue = DeviceQueue()
    early, late, never = job(deadline=1.0), job(deadline=2.0), job()
    fill(queue, early, late, never)
    assert queue.next_event(0.0) == 1.0
    assert queue.expire(0.5) == []
    assert queue.expire(1.0) == [early]
    assert queue.next_event(1.0) == 2.0
    assert queue.take(2.5) is never
    assert len(queue) == 0
    assert queue.next_event(2.5) == 2.5
    assert queue.expire(2.5) == [late]
    assert queue.next_event(2.5) is None


def test_a_cancelled_job_is_gone_and_cancelling_again_says_so() -> None:
    queue = DeviceQueue()
    first, second = job(), job()
    fill(queue, first, second)
    assert queue.cancel(first)
    assert not queue.cancel(first)
    assert drain(queue) == [second]
    assert not queue.cancel(second)


def test_a_job_that_take_found_dead_can_still_be_cancelled() -> None:
    queue = DeviceQueue()
    dead = job(deadline=1.0)
    fill(queue, dead)
    assert queue.take(1.0) is None
    assert queue.cancel(dead)
    assert queue.expire(1.0) == []


def test_draining_returns_everything_with_or_without_deadline() -> None:
    queue = DeviceQueue(per_client=4)
    jobs = [job(deadline=1.0), job(), job("b", priority=3), job(deadline=9.0)]
    fill(queue, *jobs)
    assert queue.expire(1.0) == [jobs[0]]
    assert {id(one) for one in queue.drain(2.0)} == {id(one) for one in jobs[1:]}
    assert len(queue) == 0
    assert queue.next_event(2.0) is None
    assert queue.snapshot()["expired"] == 1
    fill(queue, *jobs)
    assert len(queue) == 4


def test_the_snapshot_is_json_and_names_depth_and_cost_per_model() -> None:
    queue = DeviceQueue()
    fill(queue, job(model="a/1"), job(model="a/1"), job(model="b/2"))
    taken = queue.take(0.0)
    assert taken is not None
    queue.finished(taken, 0.01, run_s=0.01)
    state = json.loads(json.dumps(queue.snapshot()))
    assert state["length"] == 2
    assert state["models"]["a/1"] == {
        "waiting": 1,
        "run_s": 0.01,
        "switch_s": 0.0,
        "measured_runs": 1,
        "measured_switches": 0,
    }
    assert state["models"]["b/2"] == {"waiting": 1}
    assert state["switches"] == 0


class Naive:
    """The same rules the obvious way: one list, searched each time."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.rings: dict[int, list[object]] = {}

    def push(self, one: Job) -> None:
        self.jobs.append(one)
        ring = self.rings.setdefault(one.priority or 10, [])
        if one.client not in ring:
            ring.append(one.client)

    def remove(self, one: Job) -> None:
        self.jobs.remove(one)
        level = one.priority or 10
        if not any(other.client == one.client and (other.priority or 10) == level for other in self.jobs):
            self.rings[level].remove(one.client)

    def take(self) -> Job | None:
        if not self.jobs:
            return None
        level = min(one.priority or 10 for one in self.jobs)
        client = self.rings[level][0]
        one = next(o for o in self.jobs if o.client == client and (o.priority or 10) == level)
        self.remove(one)
        if client in self.rings[level]:
            self.rings[level].remove(client)
            self.rings[level].append(client)
        return one


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3), st.integers(0, 12), st.sampled_from([None, 1.0, 2.5])),
        st.tuples(st.just("take")),
        st.tuples(st.just("wait"), st.floats(0.0, 1.0)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=examples(300), deadline=None)
def test_any_sequence_of_calls_gives_what_a_plain_list_would(steps: list[tuple[object, ...]]) -> None:
    queue = DeviceQueue(capacity=16)
    naive = Naive()
    now = 0.0
    for step in steps:
        match step:
            case ("push", int(client), int(priority), ttl):
                deadline = now + ttl if isinstance(ttl, float) else None
                one = job(str(client), priority=priority, deadline=deadline, at=now)
                if len(naive.jobs) == 16:
                    with pytest.raises(QueueFull):
                        queue.push(one, now)
                else:
                    queue.push(one, now)
                    naive.push(one)
            case ("take",):
                assert queue.take(now) is naive.take()
            case ("wait", float(seconds)):
                now += seconds
                dead = [o for o in naive.jobs if o.deadline is not None and o.deadline <= now]
                event = queue.next_event(now)
                assert not dead or (event is not None and event <= now)
                assert Counter(map(id, queue.expire(now))) == Counter(map(id, dead))
                for one in dead:
                    naive.remove(one)
            case ("cancel", int(which)):
                if naive.jobs:
                    one = naive.jobs[which % len(naive.jobs)]
                    assert queue.cancel(one)
                    naive.remove(one)
        assert len(queue) == len(naive.jobs)
    assert [id(one) for one in drain(queue, -1.0)] == [id(one) for one in iter(naive.take, None)]
    assert queue._only is not None
    assert not queue._only.levels
    assert not queue._only.order
