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
        ("bazel --output_base /w/b --max_idle_secs 10 build //x", "bazel"),
        ('bazel --host_jvm_args="-Xss4m -Xmx2g" build //x', "bazel"),
        ('run_it() {\n    bazel --batch "$@"\n}', "bazel"),
        ("exec ${BAZEL} ${BAZEL_STARTUP_OPTIONS} $*", "${BAZEL}"),
        ("nice ./bazelw $COMMAND", "./bazelw"),
        ("./bazelw build //x", "./bazelw"),
        ("./bazelisk-linux-amd64 build //x", "./bazelisk-linux-amd64"),
        ("ibazel run //x", "ibazel"),
        ('bbnote "built $(bazel build //x)"', "bazel"),
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
        "install -m 0755 output/bazel $destination",
        "rm -rf $BAZEL_DIR $other",
        "for one in bazel $others; do :; done",
        "cp -r bazel --preserve x build.py",
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


@pytest.mark.parametrize(
    "text",
    [
        "./build.sh", "  sh tools/wheel.sh --out x", "install -d /x\n/w/src/bazel-bin/pip_package out", "VERBOSE=1 ./compile", "oe_runmake wheel",
        "if ! configure/run; then :; fi", '"${S}/make_it" all', ". ./environment", "python3 setup.py bdist_wheel",
        "/native/pip3 install /w/source",
        "subprocess.run(command, check=True)", "os.system(line)",
    ],
)  # fmt: skip
def test_what_the_sources_run_is_unread(text: str) -> None:
    assert bazelrun.starts_something_unread(text)


@pytest.mark.parametrize(
    "text",
    [
        "install -m 0755 ${S}/out/tool ${D}${bindir}", "# ./build.sh", "cp -r a/b c/d", "nativepython3 -m pip install x.whl", "sed -i s,a/b,c, file",
        "rm -f x.sh", "/native/pip3 install --no-deps \\\n    -t /image /w/out/*.whl",
    ],
)  # fmt: skip
def test_what_only_moves_files_is_read(text: str) -> None:
    assert not bazelrun.starts_something_unread(text)


def test_a_recipe_builds_between_its_sources_and_its_packages() -> None:
    after = {
        "do_fetch": [], "do_unpack": ["do_fetch"], "do_patch": ["do_unpack"], "do_configure": ["do_patch"], "do_compile": ["do_configure"],
        "do_wheel": ["do_compile"], "do_install": ["do_wheel"], "do_install_ptest_base": ["do_install"], "do_populate_sysroot": ["do_install"],
        "do_package": ["do_install", "do_install_ptest_base"], "do_build": ["do_package"], "do_listtasks": [],
    }  # fmt: skip
    steps = {"do_configure", "do_compile", "do_wheel", "do_install", "do_install_ptest_base"}
    assert bazelrun.between_sources_and_packages(after) == steps
    native = {task: needs for task, needs in after.items() if task not in ("do_package", "do_install_ptest_base")}
    assert bazelrun.between_sources_and_packages(native) == steps - {"do_install_ptest_base"}


def test_a_long_line_of_options_takes_no_time_to_read() -> None:
    line = "bazel " + " ".join(f'--a{n}="$X" $Y "--b" v{n}' for n in range(400))
    assert bazelrun.programs(line) == []


LIMITS = ("/w/edgeai.bazelrc", "EDGEAI_BAZEL_STARTUP")


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("bazel --bazelrc=/w/edgeai.bazelrc build //x", []),
        ("bazel build //x", ["bazel"]),
        ("bazel --bazelrc=/w/edgeai.bazelrc build //x\nbazel build //y", ["bazel"]),
        ("# /w/edgeai.bazelrc is not used\nbazel $options build //x", ["bazel"]),
        ("options=--bazelrc=/w/edgeai.bazelrc\nbazel $options build //x", []),
        ("bazel --bazelrc=/w/edgeai.bazelrc build //x; bazel shutdown", []),
        ("/w/bazel build //x; bazel run //y", ["bazel"]),
        ('run_it() {\n  bazel "$@"\n}\nrun_it --bazelrc=/w/edgeai.bazelrc build //x', []),
        ('run_it() {\n  bazel "$@"\n}\nrun_it build //x', ["bazel"]),
        ('start = d.getVar("EDGEAI_BAZEL_STARTUP")\nsubprocess.run(["bazelisk", *start.split(), "build", "x"])', []),
        ('subprocess.run(["bazelisk", *d.getVar("EDGEAI_BAZEL_STARTUP").split(), "build", "x"])', []),
    ],
)
def test_each_call_of_bazel_has_to_have_the_limits(text: str, bare: list[str]) -> None:
    assert bazelrun.without_limits(text, LIMITS, "/w/bazel") == bare


def test_a_recipe_without_any_limits_may_not_even_ask_bazel_for_its_version() -> None:
    assert bazelrun.without_limits("bazel version", LIMITS) == ["bazel"]


def test_numbers_of_jobs_that_a_function_hands_on_are_seen() -> None:
    text = 'run_it() {\n  bazel "$@"\n}\nrun_it build -j 64 //x\nmake -j 9'
    assert bazelrun.handing_on(text)
    assert bazelrun.foreign_jobs(text, 3) == []
    assert bazelrun.foreign_jobs(text, 3, ["run_it"]) == ["64"]
