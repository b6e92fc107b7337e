"""scripts/build and scripts/tflite-pins without a build: arguments, host check, what is shown and read."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from layer.workspace import Workspace, load_script
from rig import bitbake
from rig.paths import TOP

build = load_script("build")
pins = load_script("tflite-pins")
GB = 1 << 30
GOOD = dict(root=False, memory=16 * GB, free=200 * GB, missing=(), utf8=True, path="/home/me/build", websockets=True)


def request(*words: str) -> Any:
    return build.parse(list(words))


def test_machine_features_and_release_become_kas_files_in_order() -> None:
    got = build.kas_files(request("--release", "scarthgap", "raspberrypi5", "edgetpu-pcie", "power-fast"))
    assert got == (
        "kas/base.yml:kas/release/scarthgap.yml:kas/machine/raspberrypi5.yml:kas/feature/edgetpu-pcie.yml:kas/feature/power-fast.yml"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "name a machine"),
        (("raspberrypi6",), "there is no machine 'raspberrypi6'"),
        (("raspberrypi5", "edgtpu"), "there is no feature 'edgtpu'"),
        (("--release", "dunfell", "raspberrypi5"), "there is no release 'dunfell'"),
        (("--fast", "raspberrypi5"), "unknown option --fast"),
        (("raspberrypi5", "--release"), "--release needs a value"),
        (("raspberrypi5", "power-cool", "power-fast"), "exclude each other"),
        (("raspberrypi5", "--memory", "8g"), "--memory is for --container"),
        (("raspberrypi4-64", "edgetpu-pcie"), "edgetpu-pcie is for raspberrypi5, raspberrypi-cm4"),
        (("raspberrypi5", "raspberrypi4-64"), "one machine at a time: raspberrypi5 or raspberrypi4-64"),
        (("raspberrypi5", "--image="), "--image needs a value"),
        (("raspberrypi5", "--container", "--memory", "much"), "a number and b, k, m or g, such as 16g"),
        (("raspberrypi5", "--shell", "--", "-k"), "--shell starts no build"),
        (("raspberrypi5", "testimage"), "raspberrypi5 would let anybody log in as root"),
        (("raspberrypi0-2w-64", "tensorflow"), "tensorflow is not for raspberrypi0-2w-64, which has 512 MB"),
        (("--release", "scarthgap", "raspberrypi5", "json"), "json needs --release wrynose"),
        (("raspberrypi5", "--with", "/nowhere/my.yml"), "there is no such file"),
        (("raspberrypi5", "--with", "/etc/passwd"), "a kas file ends with .yml"),
    ],
)
def test_a_wrong_command_line_is_refused_with_what_would_be_right(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(build.UsageError, match=text):
        build.parse(list(words))


def test_a_good_host_has_no_problems() -> None:
    assert build.check(build.Host(**GOOD), request("raspberrypi4-64")) == []


@pytest.mark.parametrize(
    ("change", "words", "text"),
    [
        ({"root": True}, (), "you are root"),
        ({"free": 20 * GB}, (), "20 GB are free"),
        ({"memory": 2 * GB}, (), "2.0 GB of memory; this build needs 4"),
        ({"memory": 6 * GB}, ("tensorflow",), "this build needs 8"),
        ({"missing": ("chrpath", "rpcgen")}, (), "sudo apt install chrpath rpcsvc-proto"),
        ({"utf8": False}, (), "locale en_US.UTF-8"),
        ({"path": "/home/me/my builds"}, (), "a character that builds stumble over"),
        ({"websockets": False}, ("public-mirrors",), "sudo apt install python3-websockets"),
    ],
)
def test_each_thing_that_would_fail_hours_later_is_said_first(
    change: dict[str, Any], words: tuple[str, ...], text: str
) -> None:
    (problem,) = build.check(build.Host(**GOOD | change), request("raspberrypi4-64", *words))
    assert text in problem


def test_a_container_needs_neither_programs_nor_locale_and_may_be_started_by_root() -> None:
    bare = build.Host(**GOOD | {"root": True, "missing": ("gawk",), "utf8": False})
    assert build.check(bare, request("--container", "raspberrypi4-64")) == []


def test_a_dry_run_needs_no_disk() -> None:
    assert build.check(build.Host(**GOOD | {"free": GB}), request("--dry-run", "raspberrypi4-64")) == []


def test_the_kas_command_carries_target_dry_run_and_bitbake_arguments() -> None:
    line = build.command(request("--dry-run", "--image=edgeai-image-dev", "qemuarm64", "--", "-k"))
    assert line == [
        "kas",
        "build",
        "--target",
        "edgeai-image-dev",
        "kas/base.yml:kas/release/wrynose.yml:kas/machine/qemuarm64.yml",
        "--",
        "--dry-run",
        "-k",
    ]
    assert build.command(request("--container", "--memory", "16g", "qemuarm64"))[:3] == [
        "kas-container",
        "--runtime-args",
        "--memory=16g",
    ]
    assert build.command(request("--shell", "qemuarm64"))[:2] == ["kas", "shell"]


OWN = 'header:\n  version: 14\nlocal_conf_header:\n  my-settings: |\n    EDGEAI_BAZEL_JOBS = "2"\n'


def test_files_of_the_users_own_come_last_and_are_copied_into_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, place in (("TOP", tmp_path), ("COPIES", tmp_path / "kas/with"), ("LOCAL", tmp_path / "kas/local.yml")):
        monkeypatch.setattr(build, name, place)
    (tmp_path / "kas").mkdir()
    with tempfile.TemporaryDirectory() as elsewhere:
        outside, inside = Path(elsewhere) / "kitchen.yml", tmp_path / "mine.yml"
        for path in (outside, inside, build.LOCAL):
            path.write_text(OWN)
        wanted = request("--with", str(outside), "raspberrypi5", f"--with={inside}", "grpc")
        build.copy_own_files(wanted)
    assert build.kas_files(wanted).split(":")[3:] == [
        "kas/feature/grpc.yml", "kas/with/kitchen.yml", "mine.yml", "kas/local.yml",
    ]  # fmt: skip
    assert (tmp_path / "kas/with/kitchen.yml").read_text() == OWN


def test_two_files_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "my.yml").write_text(OWN)
    wanted = request("--with", str(tmp_path / "a/my.yml"), "--with", str(tmp_path / "b/my.yml"), "raspberrypi5")
    with pytest.raises(build.UsageError, match="has the same name; rename one"):
        build.copy_own_files(wanted)


def test_the_file_that_the_help_shows_is_one_for_kas() -> None:
    shown = textwrap.dedent(str(build.__doc__).partition("Such a file is:\n")[2].partition("The host is checked")[0])
    assert yaml.safe_load(shown)["local_conf_header"] == {"my-settings": 'EDGEAI_BAZEL_JOBS = "2"\n'}


def test_what_is_accepted_by_a_firmware_feature_is_said() -> None:
    (sentence,) = build.accepted_terms(request("raspberrypi4-64", "ncs-firmware", "grpc"))
    assert sentence.startswith("By this file you accept Intel's licence")


def test_results_of_a_board_that_shares_a_machine_are_looked_for_under_its_name(tmp_path: Path) -> None:
    assert build.machine_name(request("raspberrypi-cm4")) == "raspberrypi4-64"
    directory = tmp_path / "build/tmp/deploy/images/raspberrypi4-64"
    directory.mkdir(parents=True)
    (directory / "edgeai-image-raspberrypi4-64.rootfs-1.wic.bz2").write_bytes(b"x")
    (directory / "edgeai-image-raspberrypi4-64.rootfs.wic.bz2").symlink_to(
        "edgeai-image-raspberrypi4-64.rootfs-1.wic.bz2"
    )
    assert [what for what, _, _ in build.results(request("--work", str(tmp_path), "raspberrypi-cm4"))] == ["image"]


def test_progress_is_read_from_bitbakes_lines() -> None:
    line = "NOTE: Running task 120 of 480 (/l/meta/recipes-core/glibc/glibc_2.43.bb:do_compile)"
    assert build.progress(line) == " 25 %  120/480  glibc compile"
    assert build.progress("NOTE: Executing Tasks") is None


def test_results_are_named_with_path_and_size(tmp_path: Path) -> None:
    directory = tmp_path / "build/tmp-glibc/deploy/images/raspberrypi5"
    directory.mkdir(parents=True)
    for suffix, size in ((".rootfs-1.wic.bz2", 2_000_000), (".rootfs-1.wic.bmap", 100)):
        (directory / f"edgeai-image-raspberrypi5{suffix}").write_bytes(b"x" * size)
        (directory / f"edgeai-image-raspberrypi5{suffix.replace('-1', '')}").symlink_to(
            f"edgeai-image-raspberrypi5{suffix}"
        )
    results = build.results(request("--work", str(tmp_path), "raspberrypi5"))
    assert [(what, build.human(size)) for what, _, size in results] == [("image", "2.0 MB"), ("block map", "0.0 MB")]


@pytest.mark.parametrize("suffix", [".spdx.json", ".spdx.tar.zst"])
def test_the_bill_of_materials_of_either_release_is_named_once(tmp_path: Path, suffix: str) -> None:
    directory = tmp_path / "build/tmp/deploy/images/raspberrypi5"
    directory.mkdir(parents=True)
    (directory / f"edgeai-image-raspberrypi5.rootfs-2026{suffix}").write_bytes(b"x" * 1_500_000)
    (directory / f"edgeai-image-raspberrypi5.rootfs{suffix}").symlink_to(
        f"edgeai-image-raspberrypi5.rootfs-2026{suffix}"
    )
    (one,) = build.results(request("--work", str(tmp_path), "raspberrypi5"))
    assert one == ("bill of materials", directory / f"edgeai-image-raspberrypi5.rootfs{suffix}", 1_500_000)


def test_help_and_list_name_every_feature() -> None:
    done = subprocess.run([TOP / "scripts/build", "--list"], capture_output=True, text=True, check=True)
    for path in (TOP / "kas/feature").glob("*.yml"):
        (line,) = [one for one in done.stdout.splitlines() if one.split()[:1] == [path.stem]]
        assert len(line.split()) > 3, f"{path.stem} has no explanation"
    for line in done.stdout.splitlines():
        assert not line.startswith("  ") or line.endswith((".", ".)")), f"not a whole sentence: {line}"
    assert (
        "exit status"
        in subprocess.run([TOP / "scripts/build", "--help"], capture_output=True, text=True, check=True).stdout
    )


def test_a_build_that_fails_says_where_its_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kas = tmp_path / "bin" / "kas"
    kas.parent.mkdir()
    kas.write_text(
        "#!/bin/sh\necho 'NOTE: Running task 1 of 2 (/x/a_1.bb:do_fetch)'\necho 'ERROR: a-1 do_fetch: gone'\nexit 1\n"
    )
    kas.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kas.parent}:/usr/bin:/bin")
    assert build.run(request("--work", str(tmp_path / "work"), "qemuarm64")) == 1
    said = capsys.readouterr()
    assert "ERROR: a-1 do_fetch: gone" in said.out
    assert str(tmp_path / "work/build.log") in said.err


def test_the_words_of_git_are_shown_where_a_layer_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = Path(sys.executable).parent
    if not (beside / "kas").is_file():
        pytest.skip("kas is not installed beside this Python")
    wanted = request("--work", str(tmp_path / "work"), "qemuarm64")
    top = tmp_path / "top"
    commit = "1" * 40
    repos = "repos:\n  top:\n" + "".join(
        f"  {name}:\n    url: file://{tmp_path}/not-there/{name}.git\n    commit: '{commit}'\n"
        for name in ("one", "two")
    )
    for name in ("base", "release/wrynose", "machine/qemuarm64"):
        path = top / f"kas/{name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("header:\n  version: 14\n" + (f"machine: qemuarm64\n{repos}" if name == "base" else ""))
    subprocess.run(["git", "init", "-q", top], check=True)
    monkeypatch.setattr(build, "TOP", top)
    monkeypatch.setattr(build, "LOCAL", top / "kas/local.yml")
    monkeypatch.setenv("PATH", f"{beside}:/usr/bin:/bin")
    assert build.run(wanted) == 1
    said = capsys.readouterr()
    assert f"'{tmp_path}/not-there/" in said.out, "the repository that git named"
    assert "does not appear to be a git repository" in said.out or "does not exist" in said.out


def test_what_belongs_to_an_error_is_shown_to_its_end_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    lines = [
        "NOTE: Executing Tasks\n", "not shown\n", "WARNING: w\n", "not shown either\n", "ERROR: x do_compile: failed\n",
        "Log data follows:\n", *(f"| {n}\n" for n in range(100)), "NOTE: recipe x: task do_compile: Failed\n", "over\n",
        "2026-01-02 03:04:05 - ERROR    - Command failed:\n", "fatal: no host\n", "2026-01-02 03:04:05 - INFO     - end\n", "over\n",
        "ERROR: last\n", "its reason\n",
    ]  # fmt: skip
    build.show(lines, log, live=False)
    assert log.getvalue() == "".join(lines)
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "WARNING: w", "ERROR: x do_compile: failed", *(f"| {n}" for n in range(80, 100)),
        "2026-01-02 03:04:05 - ERROR    - Command failed:", "fatal: no host", "ERROR: last", "its reason",
    ]  # fmt: skip


def test_a_kas_with_known_vulnerabilities_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kas = tmp_path / "kas"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for said, problem in (
        (
            "kas 5.3 (configuration file format version 22)",
            "kas is 5.3, which has known vulnerabilities; pip install 'kas>=5.4'",
        ),
        ("kas 5.4 (configuration file format version 23)", ""),
        ("kas-container 10.0", ""),
    ):
        kas.write_text(f"#!/bin/sh\necho '{said}'\n")
        kas.chmod(0o755)
        assert build.kas_problem("kas") == problem
    kas.unlink()
    assert "is not installed" in build.kas_problem("kas")


GIT_MODULE = """
include(OverridableFetchContent)

OverridableFetchContent_Declare(
  {name}
  GIT_REPOSITORY https://example.org/{name}.git
  # Sync with another file
  GIT_TAG {commit}
  SOURCE_DIR "somewhere"
)
"""
URL_MODULE = """
OverridableFetchContent_Declare(
  {name}
  URL https://github.com/example/{name}/archive/{commit}.zip
  LICENSE_FILE "LICENSE"
)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A TensorFlow tree as far as the tool reads it."""
    directory = tmp_path / pins.MODULES
    directory.mkdir(parents=True)
    for number, name in enumerate(n for n in pins.NAMES if n not in pins.OPTIONAL):
        form = URL_MODULE if name == "farmhash" else GIT_MODULE
        (directory / f"{name}.cmake").write_text(form.format(name=name, commit=f"{number:040x}"))
    return tmp_path


def test_pins_are_read_from_git_and_archive_declarations(tree: Path) -> None:
    got = pins.collect(tree, None, False)
    assert got["cpuinfo"] == ("example.org/cpuinfo.git", "0" * 40)
    assert got["farmhash"][0] == "github.com/example/farmhash.git"


def test_dependencies_of_dependencies_come_from_their_trees(tree: Path, tmp_path: Path) -> None:
    for directory in ("xnnpack", "pthreadpool"):
        (tmp_path / directory / "cmake").mkdir(parents=True)
    (tmp_path / "xnnpack/cmake/DownloadKleidiAI.cmake").write_text(
        f"  URL https://github.com/ARM-software/kleidiai/archive/{'a' * 40}.zip\n"
    )
    (tmp_path / "pthreadpool/cmake/DownloadFXdiv.cmake").write_text(
        f"  GIT_REPOSITORY https://github.com/Maratyszcza/FXdiv.git\n  GIT_TAG {'b' * 40}\n"
    )
    got = pins.collect(tree, None, False, tmp_path / "xnnpack", tmp_path / "pthreadpool")
    assert got["kleidiai"] == ("github.com/ARM-software/kleidiai.git", "a" * 40)
    assert got["fxdiv"] == ("github.com/Maratyszcza/FXdiv.git", "b" * 40)


def test_an_archive_on_tensorflows_mirror_is_the_repository_behind_it_and_a_tag_is_not_compared(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = "https://storage.googleapis.com/mirror.tensorflow.org/github.com/petewarden/OouraFFT/archive/v1.0.tar.gz"
    (tree / pins.MODULES / "fft2d.cmake").write_text(f"OverridableFetchContent_Declare(\n  fft2d\n  URL {mirror}\n)\n")
    assert pins.collect(tree, None, False)["fft2d"] == ("github.com/petewarden/OouraFFT.git", "v1.0")
    assert pins.main(["--tree", str(tree)]) == 0
    printed = capsys.readouterr().out
    assert "v1.0 is not a commit: git ls-remote https://github.com/petewarden/OouraFFT.git v1.0" in printed
    (tmp_path / "pins.inc").write_text(printed.replace('"v1.0"', f'"{"c" * 40}"'))
    assert pins.main(["--tree", str(tree), "--check", str(tmp_path / "pins.inc")]) == 0


def test_what_is_printed_is_what_check_reads(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pins.main(["--tree", str(tree)]) == 0
    printed = capsys.readouterr().out
    assert (
        'SRC_URI += "git://example.org/xnnpack.git;protocol=https;branch=master;name=xnnpack;destsuffix=deps/xnnpack"'
        in printed
    )
    (tmp_path / "pins.inc").write_text(printed)
    assert pins.main(["--tree", str(tree), "--check", str(tmp_path / "pins.inc")]) == 0
    (tmp_path / "pins.inc").write_text(printed.replace("0" * 40, "f" * 40))
    capsys.readouterr()
    assert pins.main(["--tree", str(tree), "--check", str(tmp_path / "pins.inc")]) == 1
    assert "cpuinfo" in capsys.readouterr().out


def test_a_directory_that_is_not_tensorflow_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pins.main(["--tree", str(tmp_path)]) == 2
    assert "is this TensorFlow?" in capsys.readouterr().err


def test_the_layers_pin_file_has_the_tools_form() -> None:
    text = (TOP / "meta-edgeai/recipes-runtime/tflite/tensorflow-lite-pins-2.21.0.inc").read_text()
    assert set(pins.parse_inc(text)) >= set(pins.NAMES) | set(pins.NESTED_NAMES.values())


def shell_files() -> list[Path]:
    """Programs of scripts/ and of the layer that a shell reads."""
    files = [*(TOP / "scripts").iterdir(), *(TOP / "meta-edgeai").rglob("device/*")]
    first = {p: p.read_bytes()[:64].split(b"\n")[0].rstrip() for p in files if p.is_file()}
    return sorted(p for p, line in first.items() if line.startswith(b"#!") and line.endswith((b"sh", b"bash")))


@pytest.mark.parametrize("path", shell_files(), ids=lambda p: p.name)
def test_shell_scripts_pass_shellcheck_and_shfmt(path: Path) -> None:
    for tool, arguments in (("shellcheck", ["-x"]), ("shfmt", ["-d"])):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
        done = subprocess.run([tool, *arguments, path], capture_output=True, text=True, check=False, cwd=TOP)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_real_kas_and_bitbake_take_what_the_script_says(wrynose: Workspace) -> None:
    """Host check, checkout and BitBake's own command line; BitBake is only asked for its version."""
    script = wrynose.build.project / "scripts/build"
    work = wrynose.build.top / "by-script"
    shutil.rmtree(work, ignore_errors=True)
    done = bitbake.run(
        wrynose.build, str(script), "--dry-run", "--work", str(work), "raspberrypi5", "edgetpu-pcie", "power-fast", "--", "--version",
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "everything edgeai-image needs can be resolved for raspberrypi5" in done.stdout
    assert "BitBake Build Tool Core version" in (work / "build.log").read_text()
    assert 'MACHINE ??= "raspberrypi5"' in (work / "build/conf/local.conf").read_text()


def test_a_kas_that_cannot_run_is_named_in_a_sentence(tmp_path: Path) -> None:
    program = tmp_path / "kas"
    program.write_text("#!/nonexistent/interpreter\n")
    program.chmod(0o755)
    assert build.kas_problem(str(program)).startswith(f"{program} cannot run (No such file or directory)")


def test_a_file_that_is_not_a_disk_image_is_not_booted() -> None:
    done = subprocess.run([TOP / "scripts" / "emulate", TOP / "README.md"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "README.md is not a disk image" in done.stderr
