"""No two tasks of an image's whole graph, and TensorFlow Lite beside it, can run Bazel at once. Nothing of meta-tensorflow is masked.

What the proof rests on, of BitBake itself (each measured by test_bazel.py with the real BitBake): a task with the flag `lockfiles`
starts its functions only while it holds these files, between processes too; of tasks with one name whose number_threads is 1 in the
global configuration one runs at a time; and a task starts after all that it depends on.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field

import pytest

from layer.test_whole import needed, place, together
from layer.workspace import Workspace

EDGE = re.compile(r'^"(.+)" -> "(.+)"$')


@dataclass(slots=True)
class Graph:
    """Tasks of an image as `bitbake -g` prints them: name.task -> what it waits for."""

    after: dict[str, set[str]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        for line in text.splitlines():
            if edge := EDGE.match(line):
                self.after.setdefault(edge[1], set()).add(edge[2])

    def before(self, task: str) -> set[str]:
        """Everything that has ended when this task starts."""
        seen: set[str] = set()
        waiting = [task]
        while waiting:
            for one in self.after.get(waiting.pop(), ()):
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return seen


def unordered(graph: Graph, tasks: list[str]) -> list[tuple[str, str]]:
    """Pairs of tasks of which neither waits for the other."""
    ended = {task: graph.before(task) for task in tasks}
    return [(a, b) for a, b in itertools.combinations(tasks, 2) if a not in ended[b] and b not in ended[a]]


def could_overlap(graph: Graph, tasks: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Pairs that nothing holds apart: no order, no lock in common, not of one name that runs once at a time."""
    return [
        (a, b)
        for a, b in unordered(graph, sorted(tasks))
        if not set(tasks[a]["lockfiles"].split()) & set(tasks[b]["lockfiles"].split())
        and not (a.rsplit(".", 1)[1] == b.rsplit(".", 1)[1] and tasks[a]["number_threads"] == "1")
    ]


#: The release, its graph, and the tasks that run Bazel with their flags and variables.
Image = tuple[str, Graph, dict[str, dict[str, str]]]


@pytest.fixture(scope="module", params=["wrynose", pytest.param("scarthgap", marks=pytest.mark.slow)])
def image(request: pytest.FixtureRequest) -> Image:
    """The release, the graph of edgeai-image with all features (tensorflow among them) and tensorflow-lite, its tasks that run Bazel."""
    own: Workspace = place(request.param, "raspberrypi4-64", *together(request.param))
    recipes = needed(own, "edgeai-image", "tensorflow-lite")
    assert recipes >= {"tensorflow", "tensorflow-lite", "bazel-native"}
    assert "BBMASK" not in "".join(p.read_text() for p in (own.directory / "conf").glob("*.conf"))
    graph = Graph()
    graph.add((own.directory / "task-depends.dot").read_text())
    tasks = {}
    for file in (own.directory / "bazel-census").glob("*.json"):
        recipe = json.loads(file.read_text())
        for task, flags in recipe["tasks"].items():
            tasks[f"{file.stem}.{task}"] = flags | recipe["variables"]
    return request.param, graph, {name: one for name, one in tasks.items() if name in graph.after}


def test_no_two_tasks_of_the_image_can_run_bazel_at_once(image: Image) -> None:
    release, graph, tasks = image
    print(
        f"{release}: {len(graph.after)} tasks, {len(tasks)} of them run Bazel, {len(unordered(graph, sorted(tasks)))} pairs without an order"
    )
    expected = {
        "wrynose": {"bazel-native", "tensorflow", "tensorflow-lite"},
        "scarthgap": {
            "bazel-native", "tensorflow", "tensorflow-native", "tensorflow-lite", "keras", "keras-native", "tensorflow-estimator",
        },
    }  # fmt: skip
    assert expected[release] <= {name.split(".")[0] for name in tasks if name.endswith(".do_compile")}
    assert could_overlap(graph, tasks) == []


def test_the_same_question_without_the_locks_names_the_pairs(image: Image) -> None:
    """The question is not empty: without the locks there are pairs that could run at once."""
    _, graph, tasks = image
    bare = {name: one | {"lockfiles": ""} for name, one in tasks.items()}
    pairs = could_overlap(graph, bare)
    assert ("tensorflow-lite.do_compile", "tensorflow.do_compile") in pairs
    assert ("bazel-native.do_compile", "tensorflow.do_compile") not in pairs, "the graph orders these"


def test_every_bazel_of_the_image_keeps_the_limits(image: Image) -> None:
    _, _, tasks = image
    for name, one in tasks.items():
        assert one["prefuncs"].split()[0] == "edgeai_bazel_write_limits", name
        assert re.fullmatch(r"\d+", one["BAZEL_JOBS"]), name
        assert re.fullmatch(r"-Xmx\d+m", one["JAVA_TOOL_OPTIONS"]), name
        assert "--jobs=auto" not in f"{one['CUSTOM_BAZEL_FLAGS']} {one['do_compile']}", name
        if not name.startswith("bazel-native."):
            assert "--host_jvm_args=-Xmx" in one["BAZEL_STARTUP_OPTIONS"], name
            assert "/edgeai.bazelrc" in one["BAZEL_STARTUP_OPTIONS"], name
        if name.split(".")[0] in ("tensorflow", "tensorflow-native"):
            assert "tflite_with_xnnpack=false" not in one["do_compile"], name
            for part in ("aws", "hdfs", "nccl"):
                assert f"no_{part}_support=true" in one["EDGEAI_BAZEL_OPTIONS"], name
