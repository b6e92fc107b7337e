"""What BitBake makes of every recipe of the layer: variables, tasks and packages, read through tinfoil.

Only the layer's own recipes (and the few of others that it appends to) are parsed: seconds instead of minutes. The whole parse
is in test_whole.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from layer.workspace import MACHINES, RELEASES, RUNTIMES, Workspace, hand_over, kas_files, workspace
from rig import bitbake
from rig.paths import TOP, Missing

ALL = (
    "tensorflow", "edgetpu-pcie", "ncs", "ncs2", "k210", "grpc", "frigate", "mqtt", "camera", "weston", "power-fast", "debug",
)  # fmt: skip
OTHERS = ("tensorflow", "tensorflow-lite", "tensorflow-native", "bazel-native", "rpi-config")
#: What BitBake makes of each recipe, by name; `_said` is what it printed.
Facts = dict[str, Any]
MASK = """
BBMASK = "/openembedded-core/meta/recipes- /meta-openembedded/ /meta-raspberrypi/(recipes-(?!bsp/bootfiles/rpi-config)|dynamic-layers) \
  /meta-tensorflow/recipes-(?!framework/tensorflow/tensorflow|devtools/bazel)"
"""
# Recipes under Intel's licence are skipped otherwise, and could not be looked at.
ACCEPTED = 'LICENSE_FLAGS_ACCEPTED += "commercial_intel-movidius"\n'
COMMIT = re.compile(r"[0-9a-f]{40}")


def build_directory(release: str, machine: str, *features: str) -> Workspace:
    """A directory of its own for each machine: its cache stays valid."""
    try:
        base = workspace(release, machine, *features)
    except Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")
    own = Workspace(base.build, base.build.top / f"facts-{machine}")
    (own.directory / "conf").mkdir(parents=True, exist_ok=True)
    for name in ("bblayers.conf", "local.conf"):
        shutil.copyfile(base.directory / "conf" / name, own.directory / "conf" / name)
    hand_over(own.directory)
    return own


def read_facts(release: str, machine: str, *features: str) -> Facts:
    own = build_directory(release, machine, *features)
    out = own.directory / "facts.json"
    out.unlink(missing_ok=True)
    script = own.build.project / "recipes-tests/layer/dump_recipes.py"
    others = OTHERS if "tensorflow" in features and machine != "qemuarm64" else ()
    done = own.run(
        "env", f"PYTHONPATH={own.layers}/bitbake/lib", "python3", str(script), "edgeai-rpi", str(out), *others,
        settings=MASK + ACCEPTED, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    facts: Facts = json.loads(out.read_text())
    facts["_said"] = done.stdout
    return facts


@pytest.fixture(scope="module", params=RELEASES)
def facts(request: pytest.FixtureRequest) -> Facts:
    return read_facts(request.param, "raspberrypi5", *ALL)


def own(facts: Facts) -> Facts:
    return {n: f for n, f in facts.items() if n not in OTHERS and not n.startswith("_")}


def test_with_all_features_no_recipe_of_ours_is_skipped(facts: Facts) -> None:
    skipped = {name: one["skipped"] for name, one in own(facts).items() if one.get("skipped")}
    if "edgeaid-json" in skipped:
        assert "meta-python of scarthgap has no python3-orjson" in skipped.pop("edgeaid-json")
    assert skipped == {}


def test_a_development_image_has_the_daemons_tests(facts: Facts) -> None:
    assert "edgeaid-ptest" in facts["edgeai-image-dev"]["IMAGE_INSTALL"].split()


def test_every_recipe_can_be_evaluated_without_a_word_of_warning(facts: Facts) -> None:
    assert len(own(facts)) > 25
    assert not {n: f["error"] for n, f in own(facts).items() if "error" in f}
    ours = [
        x
        for x in facts["_said"].splitlines()
        if re.search("ERROR|WARNING", x) and "No bb files" not in x and "uninative" not in x
    ]
    assert not ours, ours


def test_no_step_of_a_build_uses_the_network(facts: Facts) -> None:
    # Tasks that oe-core itself lets out (fetching, shared state, tests on a target) are not steps of a build.
    steps = {f"do_{t}" for t in "unpack patch configure compile bazel_compile install rootfs".split()}
    for name, one in own(facts).items():
        for task in steps & set(one["tasks"]):
            assert not one["tasks"][task].get("network"), f"{name}: {task} uses the network"


def test_every_git_source_is_a_full_commit_and_every_download_has_a_checksum(facts: Facts) -> None:
    for name, one in own(facts).items():
        for uri, revision in one["revisions"].items():
            assert not ("branch=" in uri.replace("nobranch=", "") and "nobranch=1" in uri), f"{name}: {uri}"
            assert COMMIT.fullmatch(revision or ""), f"{name}: {uri} at {revision}"
            assert "protocol=https" in uri
        for uri, checksum in one["checksums"].items():
            assert re.fullmatch(r"[0-9a-f]{64}", checksum or ""), f"{name}: {uri}"
        assert "AUTOINC" not in (one["PV"] or "")


def test_every_recipe_that_fetches_has_a_licence_with_a_checksum(facts: Facts) -> None:
    for name, one in own(facts).items():
        assert one["LICENSE"] not in ("CLOSED", "Proprietary", None), name
        if one["SRC_URI"] and not one["inherits_image"]:
            assert "md5=" in (one["LIC_FILES_CHKSUM"] or ""), name


def test_every_recipe_says_how_newer_versions_are_found_and_who_answers(facts: Facts) -> None:
    for name, one in own(facts).items():
        assert one["RECIPE_MAINTAINER"], f"{name}: no maintainer in conf/include/edgeai-maintainers.inc"
        if one["revisions"] or one["checksums"]:
            assert any(one[k] for k in one if k.startswith("UPSTREAM_")), f"{name}: no UPSTREAM_CHECK"


def test_vulnerabilities_are_looked_up_by_the_names_that_databases_have(facts: Facts) -> None:
    # By default it is the recipe's name, under which nobody lists anything.
    listed = {name: (one["CVE_PRODUCT"] or "").split() for name, one in own(facts).items()}
    assert "google:tensorflow" in listed["python3-tflite-runtime"]
    assert "google:flatbuffers" in listed["flatbuffers-edgeai"]
    assert "intel:openvino" in listed["openvino-myriad"]
    # Numbers of LiteRT's versions are those of old TensorFlows, with hundreds of findings that are none.
    assert {listed[name][0] for name in ("litert-bin", "python3-ai-edge-litert-bin")} == {"google:litert"}


def test_sources_unpack_where_both_releases_want_them(facts: Facts) -> None:
    for name, one in own(facts).items():
        if one["SRC_URI"] and not one["inherits_image"]:
            assert one["S"].startswith(one["UNPACKDIR"] + "/"), f"{name}: S = {one['S']}"


def test_intels_firmware_is_behind_a_licence_flag_and_in_no_image(facts: Facts) -> None:
    for name in ("mvnc-firmware", "openvino-vpu-firmware"):
        assert facts[name]["LICENSE_FLAGS"] == "commercial_intel-movidius"
    for name, one in own(facts).items():
        if one["inherits_image"]:
            assert "firmware" not in one["IMAGE_INSTALL"]
        for package, needed in one["rdepends"].items() if "firmware" not in name else ():
            assert not any("mvnc-firmware" in n or "vpu-firmware" in n for n in needed), f"{name}: {package}"


def test_an_image_holds_exactly_the_runtimes_asked_for(facts: Facts) -> None:
    groups = {p for p in facts["edgeai-image"]["IMAGE_INSTALL"].split() if p.startswith("packagegroup-edgeai-")}
    assert groups == {f"packagegroup-edgeai-{name}" for name in ("base", "machine", "cpu", "dev-tools", *RUNTIMES)}
    assert "ssh-server-openssh" in facts["edgeai-image"]["IMAGE_FEATURES"]
    assert not re.search("empty-root|allow-root|allow-empty|debug-tweaks", facts["edgeai-image"]["IMAGE_FEATURES"])


def test_an_image_has_the_kernel_modules_and_the_firmware_of_its_board(facts: Facts) -> None:
    recommended = facts["packagegroup-edgeai-machine"]["rrecommends"]["packagegroup-edgeai-machine"]
    assert {"kernel-modules", "linux-firmware-rpidistro-bcm43455"} <= set(recommended)


def test_tflite_runtime_is_compiled_offline_with_xnnpack(facts: Facts) -> None:
    one = facts["python3-tflite-runtime"]
    flags = one["EXTRA_OECMAKE"]
    assert "-DFETCHCONTENT_FULLY_DISCONNECTED=ON" in flags
    assert "-DTFLITE_ENABLE_XNNPACK=ON" in flags
    assert len(one["revisions"]) == 13
    for name in re.findall(r"destsuffix=deps/(\w+)", one["SRC_URI"]):
        assert f"/deps/{name}/" in one["LIC_FILES_CHKSUM"], f"no licence text of {name}"
    for name in ("XNNPACK", "CPUINFO", "RUY", "EIGEN", "FLATBUFFERS"):
        assert re.search(rf"-DFETCHCONTENT_SOURCE_DIR_{name}=\S+/deps/{name.lower()}\b", flags)


@pytest.mark.parametrize(
    ("wanted", "used"), [("-j 1 -l 3", "-j 1 -l 3"), ("-j 4096", r"-j \d{1,3}"), ("", r"-j \d{1,3}")]
)
def test_tflite_runtime_runs_no_more_steps_than_fit_into_the_memory_or_the_user_wants(wanted: str, used: str) -> None:
    directory = build_directory("wrynose", "raspberrypi4-64")
    recipe = directory.build.project / "meta-edgeai/recipes-runtime/tflite/python3-tflite-runtime_2.21.0.bb"
    done = directory.run(
        "bitbake", "-b", str(recipe), "-e", settings=MASK + f'PARALLEL_MAKE = "{wanted}"\n', timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (value,) = re.findall(r'^(?:export )?PARALLEL_MAKE="(.*)"$', done.stdout, re.M)
    assert re.fullmatch(used, value), value


def test_both_cpu_runtimes_provide_the_same_name(facts: Facts) -> None:
    for name in ("python3-tflite-runtime", "python3-ai-edge-litert-bin"):
        assert "edgeai-cpu-runtime" in facts[name]["rprovides"][name]


def test_the_wheel_fits_the_releases_python(facts: Facts) -> None:
    one = facts["python3-ai-edge-litert-bin"]
    tag = "cp" + one["PYTHON_BASEVERSION"].replace(".", "")
    assert f"-{tag}-{tag}-manylinux" in one["SRC_URI"]
    assert one["rdepends"]["python3-ai-edge-litert-bin"] == ["python3-core", "python3-ctypes", "python3-numpy"]


def test_libedgetpu_is_built_against_the_headers_of_the_runtime(facts: Facts) -> None:
    tensorflow, *others = (
        {u: c for u, c in facts[name]["checksums"].items() if "tensorflow/tensorflow" in u}
        for name in ("libedgetpu", "python3-tflite-runtime")
    )
    assert tensorflow
    assert others == [tensorflow]
    assert "abi-check.cc" in facts["libedgetpu"]["do_compile"]
    assert {"libedgetpu-clock-std", "libedgetpu-clock-max", "libedgetpu-udev"} <= set(
        facts["libedgetpu"]["PACKAGES"].split()
    )


def test_the_daemon_runs_as_its_own_user_behind_sockets(facts: Facts) -> None:
    one = facts["edgeaid"]
    assert "edgeaid.socket" in one["service"]["edgeaid"].split()
    assert "--system" in one["users"]["edgeaid"]
    for group in ("edgeai", "edgeai-observe", "edgeai-infer", "edgeai-control", "apex"):
        assert f"--system {group}" in one["groups"]["edgeaid"]
    for heavy in ("hpack", "protobuf", "pyzmq", "cryptography", "pyserial"):
        assert not any(heavy in needed for needed in one["rdepends"]["edgeaid"]), (
            f"{heavy} belongs to a package of its own"
        )


def test_the_fast_profile_is_in_config_txt_and_features_add_their_lines(facts: Facts) -> None:
    text = facts["rpi-config"]["RPI_EXTRA_CONFIG"]
    assert "arm_freq=2600" in text
    assert "dtparam=pciex1" in text
    assert all(len(line) <= 80 for line in text.split("\\n"))
    assert facts["edgeai-power"]["EDGEAI_POWER_GOVERNOR"] == "performance"


@pytest.mark.parametrize("release", RELEASES)
def test_with_a_distribution_of_its_own_the_boards_config_txt_is_as_its_layer_has_it(release: str) -> None:
    directory = build_directory(release, "raspberrypi4-64")
    fast = MASK + 'EDGEAI_POWER_PROFILE = "fast"\n'
    for settings, lines in ((fast, True), (fast + 'DISTRO = "nodistro"\n', False)):
        # It shows the recipe and then fails: what the recipe depends on is masked.
        done = directory.run("bitbake", "-e", "rpi-config", settings=settings, timeout=900)
        assert re.search('^PN="rpi-config"$', done.stdout, re.M), done.stdout[-3000:]
        text = "".join(re.findall(r'^RPI_EXTRA_CONFIG="(.*)"$', done.stdout, re.M))
        assert ("arm_freq=1750" in text) == lines, text


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-lite", "tensorflow-native", "bazel-native"])
def test_meta_tensorflows_recipes_take_the_lock_and_the_limits(facts: Facts, name: str) -> None:
    one = facts[name]
    assert "edgeai-bazel" in one["tasks"]["do_compile"]["lockfiles"]
    assert one["BAZEL_JOBS"] == one["EDGEAI_BAZEL_JOBS"]
    assert one["tasks"]["do_compile"]["prefuncs"].split()[0] == "edgeai_bazel_write_limits"
    if name == "bazel-native":
        return
    assert "--host_jvm_args=-Xmx" in one["BAZEL_STARTUP_OPTIONS"]
    assert name == "tensorflow-native" or "edgeai-bazel" in one["tasks"]["do_configure"]["lockfiles"]
    assert "tflite_with_xnnpack=false" not in (one["do_compile"] or "")
    for part in ("aws", "hdfs", "nccl"):
        assert f"--define=no_{part}_support=true" in one["EDGEAI_BAZEL_OPTIONS"]
    if name == "tensorflow-lite":
        assert "--jobs=auto" not in one["CUSTOM_BAZEL_FLAGS"]


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_layer_parses_for_every_machine(release: str, machine: str) -> None:
    facts = read_facts(release, machine, *(f for f in ALL if f != "tensorflow"))
    assert not {n: f["error"] for n, f in facts.items() if not n.startswith("_") and "error" in f}


def test_an_unknown_power_profile_ends_the_parse() -> None:
    directory = build_directory("wrynose", "raspberrypi4-64")
    done = directory.run("bitbake", "-p", settings=MASK + 'EDGEAI_POWER_PROFILE = "turbo"\n', timeout=900)
    assert done.returncode != 0
    assert "EDGEAI_POWER_PROFILE is 'turbo'; it can be: stock, cool, fast" in done.stdout


@pytest.mark.parametrize("release", RELEASES)
def test_the_journal_outlives_a_reset_except_on_a_read_only_root(release: str) -> None:
    directory = build_directory(release, "raspberrypi4-64")
    for read_only in (False, True):
        settings = MASK + ('EDGEAI_READONLY = "1"\n' if read_only else "")
        done = directory.run("bitbake", "-e", settings=settings, timeout=900)
        assert done.returncode == 0, done.stdout[-3000:]
        value = dict(re.findall(r'^(VOLATILE_LOG_DIR|FILESYSTEM_PERMS_TABLES)="(.*)"$', done.stdout, re.M))
        tables = value["FILESYSTEM_PERMS_TABLES"]
        in_memory = "volatile-log" in tables if release == "wrynose" else value["VOLATILE_LOG_DIR"] == "yes"
        assert in_memory == read_only, value
        assert ("persistent-log" in tables) == (release == "scarthgap" and not read_only)


def test_a_release_needs_the_projects_address_and_says_so() -> None:
    directory = build_directory("wrynose", "raspberrypi4-64")
    recipe = directory.build.project / "meta-edgeai/recipes-edgeai/edgeaid/edgeaid_0.1.0.bb"
    release = MASK + 'EDGEAID_SOURCE = "git"\n'
    done = directory.run("bitbake", "-b", str(recipe), "-e", settings=release, timeout=900)
    assert done.returncode != 0
    assert "EDGEAID_SOURCE is 'git' but EDGEAI_PROJECT_URL says no address; set it to" in done.stdout

    release += 'EDGEAI_PROJECT_URL = "https://code.example/owner/edge"\n'
    done = directory.run("bitbake", "-b", str(recipe), "-e", settings=release, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    value = dict(re.findall(r'^(SRC_URI|SRCREV|HOMEPAGE|S)="(.*)"$', done.stdout, re.M))
    assert "git://code.example/owner/edge;protocol=https;branch=main;destsuffix=edgeai" in value["SRC_URI"].split()
    assert COMMIT.fullmatch(value["SRCREV"])
    assert value["HOMEPAGE"] == "https://code.example/owner/edge"
    assert value["S"].endswith("/edgeai/daemon")


def test_the_pinned_commit_of_a_release_has_what_the_recipes_take() -> None:
    text = (TOP / "meta-edgeai/recipes-edgeai/edgeaid/edgeai-source.inc").read_text()
    (commit,) = re.findall(r'^EDGEAID_SRCREV \?= "(\w{40})"', text, re.M)
    git = ["git", "-C", str(TOP), "-c", f"safe.directory={TOP}"]
    if subprocess.run([*git, "cat-file", "-e", commit], capture_output=True, check=False).returncode:
        pytest.skip("this copy has no history back to the pinned commit")
    listed = subprocess.run(
        [*git, "ls-tree", "-r", "--name-only", commit, "daemon"], capture_output=True, text=True, check=True
    )
    there = listed.stdout.splitlines()
    for recipe in sorted((TOP / "meta-edgeai/recipes-edgeai").glob("*/*.bb")):
        for part in " ".join(re.findall(r'^EDGEAID_TREE_PARTS = "(.*)"', recipe.read_text(), re.M)).split():
            assert any(f"{name}/".startswith(f"daemon/{part}/") for name in there), f"{recipe.name}: {part} at {commit}"
    units = "edgeaid.service edgeaid.socket edgeaid-fast.socket edgeaid-usb.socket edgeaid-usb@.service"
    for unit in (*units.split(), "edgeai-provision.service"):
        assert f"daemon/systemd/{unit}" in there


def test_the_status_table_of_the_readme_is_the_generated_one() -> None:
    done = subprocess.run([sys.executable, TOP / "recipes-tests/layer/status_table.py", "--check"], check=False)
    assert done.returncode == 0, "run recipes-tests/layer/status_table.py"


def test_kas_files_of_the_readme_exist() -> None:
    for name in re.findall(r"kas/[\w/.-]+\.yml", (TOP / "meta-edgeai/README.md").read_text()):
        assert name == "kas/local.yml" or (TOP / name).is_file(), name  # the reader's own
    assert bitbake.KAS_VERSION
    assert kas_files("wrynose", "qemuarm64")
