"""Which text runs Bazel (edgeai.bazelrun)."""

from __future__ import annotations

import sys

import pytest

from rig.paths import TOP

sys.path.insert(0, str(TOP / "meta-edgeai" / "lib"))

from edgeai import bazelrun


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("bazel build //...", "bazel"),
        ("    /w/bazel/bazel build \\\n  //tensorflow:libtensorflow.so", "/w/bazel/bazel"),
        ("/w/bazel/bazel --output_base=/w/b --batch version", "/w/bazel/bazel"),
        ("cd x && nice -n 5 bazelisk --batch run //:wheel", "bazelisk"),
        ("bazel-7.7.0 test //...", "bazel-7.7.0"),
        ("$BAZEL build //...", "$BAZEL"),
        ('"${BAZEL_BIN}" $BAZEL_STARTUP_OPTIONS fetch //...', "${BAZEL_BIN}"),
        ("if ! bazel clean; then :; fi", "bazel"),
        ("out=$(bazel info output_base)", "bazel"),
        ("bash -c 'bazel build //x'", "bazel"),
        ("sh tensorflow/lite/build_pip_package_with_bazel.sh", "tensorflow/lite/build_pip_package_with_bazel.sh"),
        ("/s/build_with_bazel.sh", "/s/build_with_bazel.sh"),
        ('subprocess.run(["bazel", "--batch", "build", "//x"])', "bazel"),
        ('bb.process.run("bazel build //x")', "bazel"),
        ('subprocess.run(["bazelisk", *start.split(), "build", target])', "bazelisk"),
    ],
)
def test_a_call_of_bazel_is_recognised(text: str, program: str) -> None:
    assert bazelrun.programs(text) == [program]


@pytest.mark.parametrize(
    "text",
    [
        "# bazel build //...",
        "rm -rf bazel-bin bazel-out BUILD.bazel",
        "install -m 0755 ${S}/output/bazel ${D}${bindir}",
        "create_cmdline_wrapper /w/bazel/bazel \\$BAZEL_STARTUP_OPTIONS",
        "zip -A /w/bazel/bazel.real",
        'echo "use bazel build //x instead"; true',
        'bbnote "built by bazel build"',
        "./bazel-bin/tools/build_pip_package out",
        "mkdir -p bazel/build",
        "sed -i s/bazel// build.py",
        "cp tools/bazel.sh build/",
        "bazel builder",
    ],
)
def test_what_only_names_bazel_is_not_a_call(text: str) -> None:
    assert bazelrun.programs(text) == []


@pytest.mark.parametrize(
    "limit",
    [
        "--jobs=auto", "--jobs 64", "--jobs=HOST_CPUS*.5", "--local_ram_resources=HOST_RAM*.67", "--local_cpu_resources=8",
        "--local_resources=memory=HOST_RAM*.25", "--local_resources=cpu=4", "--host_jvm_args=-Xmx8g",
    ],
)  # fmt: skip
def test_a_limit_that_is_written_down_is_taken_out(limit: str) -> None:
    assert bazelrun.without_written_limits(f"bazel {limit} build -c opt").split() == ["bazel", "build", "-c", "opt"]


def test_a_limit_that_follows_the_host_stays() -> None:
    text = "bazel build --jobs=${BAZEL_JOBS} --local_ram_resources=${BAZEL_MEM} --config=v2"
    assert bazelrun.without_written_limits(text) == text


@pytest.mark.parametrize(
    ("text", "foreign"),
    [("bazel build -j 64 x", ["64"]), ("bazel build --jobs=3 x", []), ("make -j 64\nbazel build x", []), ("bazel build --jobs=HOST_CPUS*.25", ["HOST_CPUS*.25"])],
)  # fmt: skip
def test_numbers_of_jobs_on_bazels_own_line_are_seen(text: str, foreign: list[str]) -> None:
    assert bazelrun.foreign_jobs(text, 3) == foreign
