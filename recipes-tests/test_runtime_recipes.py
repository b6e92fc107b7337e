"""Every runtime recipe: fetched from where it says, compiled, packaged and checked by real BitBake in the test distribution.

A recipe is skipped, with the reason, where one of its sources does not answer: each URL is asked first for the very commit that
the recipe pins, through whatever git configuration this computer has. What was compiled is then run, as far as it goes without
a device: aarch64 code under qemu-aarch64.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "recipes-tests"))

from rig import bitbake, packages, paths  # noqa: E402  the path above has to be set first

pytestmark = pytest.mark.slow

RUNTIMES = TOP / "meta-edgeai/recipes-runtime"
#: What is asked of each recipe: package QA, the licence texts' checksums, a package to install; the first two leave what the
#: tests below look at, also where shared state has the rest.
TASKS = ("do_prepare_recipe_sysroot", "do_package", "do_package_qa", "do_populate_lic", "do_package_write_deb")
#: Recipes that BitBake builds only when told so.
OLDER = {"libmvnc_1.12.01.01": 'PREFERRED_VERSION_libmvnc = "1.12%"\n'}


@dataclass(frozen=True, slots=True)
class Built:
    """A recipe that went through all TASKS."""

    build: bitbake.Build
    name: str
    version: str

    @property
    def work(self) -> Path:
        (directory,) = (p for p in self.build.tmp.glob(f"work/*/{self.name}/*") if p.name.startswith(self.version))
        return directory

    @property
    def split(self) -> Path:
        """packages-split: a directory per package, with its files."""
        return self.work / "packages-split"

    @property
    def sysroot(self) -> Path:
        return self.work / "recipe-sysroot"


def recipe_files() -> list[Path]:
    return sorted(RUNTIMES.glob("*/*.bb"))


def whole(path: Path) -> str:
    """A recipe with what it requires put in."""
    text = path.read_text()
    for name in re.findall(r"^require (\S+)", text, re.M):
        near = path.parent / name
        text += (near if near.is_file() else TOP / "meta-edgeai" / name).read_text()
    return text


def git_sources(path: Path) -> list[tuple[str, str]]:
    """(public URL, commit) of every git source of a recipe."""
    text = whole(path)
    sources = []
    for address, options in re.findall(r"git://([^;\s\"]+)(;[^\s\"]*)", text):
        named = re.search(r";name=([\w-]+)", options)
        revision = re.search(rf'^SRCREV{"_" + named[1] if named else ""} = "(\w+)"', text, re.M)
        assert revision, f"{path.name}: no SRCREV for {address}"
        sources.append((f"https://{address}", revision[1]))
    return sources


@functools.cache
def unreachable(url: str, commit: str) -> str:
    """Empty where the server gives this commit (asked for alone, without its files), else why not."""
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    try:
        asked = subprocess.run(
            ["git", "ls-remote", "--exit-code", url, "HEAD"],
            capture_output=True, text=True, timeout=30, check=False, env=environment,
        )  # fmt: skip
        if asked.returncode:
            return f"{url} cannot be reached: {(asked.stderr.strip().splitlines() or ['git ls-remote failed'])[-1]}"
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["git", "init", "-q", "--bare", directory], check=True, env=environment)
            given = subprocess.run(
                ["git", "-C", directory, "fetch", "-q", "--depth=1", "--filter=tree:0", url, commit],
                capture_output=True, text=True, timeout=300, check=False, env=environment,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{url} does not answer"
    if given.returncode:
        return f"{url} does not give {commit[:10]}: {(given.stderr.strip().splitlines() or ['git fetch failed'])[-1]}"
    return ""


def in_downloads(build: bitbake.Build, url: str, commit: str) -> bool:
    """Whether BitBake's download directory has this commit of this repository already."""
    clone = build.work / "downloads/git2" / url.removeprefix("https://").replace("/", ".")
    asked = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(clone), "cat-file", "-e", commit], capture_output=True, check=False
    )
    return clone.is_dir() and asked.returncode == 0


def missing_source(build: bitbake.Build, path: Path) -> str:
    """Why a recipe cannot be fetched here; empty where it can."""
    for url, commit in git_sources(path):
        if not in_downloads(build, url, commit) and (reason := unreachable(url, commit)):
            return reason
    for url, options in re.findall(
        r"(https://(?:storage\.|github\.com/\S+/archive/)[^;\s\"]+)(;[^\s\"]*)?", whole(path)
    ):
        named = re.search(r"downloadfilename=([^;]+)", options)
        if (build.work / "downloads" / (named[1] if named else url.rsplit("/", 1)[1])).is_file():
            continue
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30).close()  # noqa: S310 - https only
        except (OSError, urllib.error.URLError) as error:
            return f"{url}: {error}"
    return ""


@pytest.fixture(scope="module", params=paths.RELEASES)
def build(request: pytest.FixtureRequest) -> bitbake.Build:
    try:
        return bitbake.prepare(request.param, variant="runtime-recipes")
    except paths.Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")


def make(build: bitbake.Build, path: Path) -> Built:
    """Run TASKS of a recipe; skips where a source, ours or of what it needs, cannot be had."""
    name, version = path.stem.split("_")
    if reason := missing_source(build, path):
        pytest.skip(f"{name}: {reason}")
    settings = build.top / f"{path.stem}.conf"
    settings.write_text(OLDER.get(path.stem, "# nothing more\n"))
    targets = " ".join(f"{name}:{task}" for task in TASKS)
    log = build.top / f"build-{path.stem}.log"
    done = bitbake.kas(build, "shell", "-c", f"bitbake -k -R {settings} {targets}", log=log, timeout=4 * 3600)
    failed = re.findall(r"^  (?:virtual:native:)?/\S*/([\w.+-]+)\.bb:(do_\w+)", done.stdout, re.M)
    if failed and all(task == "do_fetch" and recipe != path.stem for recipe, task in failed):
        pytest.skip(f"{name}: needs {', '.join(sorted({recipe for recipe, _ in failed}))}, whose source cannot be had")
    errors = [line for line in done.stdout.splitlines() if "ERROR" in line or re.match(r"\|.*\berror\b", line)]
    assert done.returncode == 0, f"log: {log}\n" + "\n".join(errors[:12] or done.stdout.splitlines()[-30:])
    ours = [line for line in done.stdout.splitlines() if re.match(rf"WARNING: {re.escape(name)}-", line)]
    assert not ours, ours
    return Built(build, name, version)


@pytest.mark.parametrize("path", recipe_files(), ids=lambda p: p.stem)
def test_recipe_is_fetched_compiled_packaged_and_passes_qa(build: bitbake.Build, path: Path) -> None:
    built = make(build, path)
    # Everything a package of ours holds for the device is code of the device.
    for file in built.split.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.read_bytes()[:4] == b"\x7fELF":
            header = subprocess.run(["readelf", "-h", file], capture_output=True, text=True, check=True).stdout
            assert "AArch64" in header, file


def test_every_git_source_of_the_runtime_recipes_is_read_by_this_test() -> None:
    named = {path.stem.split("_")[0]: git_sources(path) for path in recipe_files()}
    assert len(named["python3-tflite-runtime"]) == 13
    assert len(named["libedgetpu"]) == 1
    assert len(named["mvnc-firmware"]) == len(named["openvino-myriad"]) == 2
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for pairs in named.values() for _, commit in pairs)


# --- what was compiled, run -------------------------------------------------------------------------------------------


def recipe(name: str) -> Path:
    (path,) = RUNTIMES.glob(f"*/{name}.bb")
    return path


def run_aarch64(built: Built, source: str, tmp_path: Path, *libraries: Path) -> str:
    """Compile a C program that opens libraries by name, run it under qemu-aarch64 among this recipe's libraries; its output."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not emulator:
        pytest.skip("not installed: qemu-aarch64; Debian package: qemu-user")
    (tmp_path / "program.c").write_text(source)
    subprocess.run(["aarch64-linux-gnu-gcc", "-o", tmp_path / "program", tmp_path / "program.c", "-ldl"], check=True)
    # The loader and the C library must be of one build: both are the recipe sysroot's.
    (tmp_path / "root").mkdir()
    (tmp_path / "root/lib").symlink_to(built.sysroot / "usr/lib")
    search = ":".join(str(p) for p in (*libraries, built.sysroot / "usr/lib"))
    done = subprocess.run(
        [emulator, "-L", tmp_path / "root", "-E", f"LD_LIBRARY_PATH={search}", tmp_path / "program"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


OPEN = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
static void *find(void *library, const char *name) {
  void *symbol = dlsym(library, name);
  if (!symbol) { puts(dlerror()); exit(3); }
  return symbol;
}
int main(void) {
  void *library = dlopen("%s", RTLD_NOW);
  if (!library) { puts(dlerror()); return 2; }
  %s
  return 0;
}
"""

EDGETPU = """
  size_t count = 99;
  void *devices = ((void *(*)(size_t *))find(library, "edgetpu_list_devices"))(&count);
  ((void (*)(void *))find(library, "edgetpu_free_devices"))(devices);
  printf("devices %zu\\n%s\\n", count, ((const char *(*)(void))find(library, "edgetpu_version"))());
  find(library, "edgetpu_create_delegate"); find(library, "edgetpu_free_delegate"); find(library, "edgetpu_verbosity");
  find(library, "tflite_plugin_destroy_delegate");
  void *(*create)(char **, char **, size_t, void (*)(const char *)) = find(library, "tflite_plugin_create_delegate");
  char *key = "device", *value = "usb:7";
  printf("delegate %s\\n", create(&key, &value, 1, 0) ? "made" : "refused");
"""

MVNC_1 = """
  char name[64] = "";
  printf("status %d\\n", ((int (*)(int, char *, unsigned))find(library, "mvncGetDeviceName"))(0, name, sizeof name));
  find(library, "mvncOpenDevice"); find(library, "mvncAllocateGraph"); find(library, "mvncLoadTensor");
"""

MVNC_2 = """
  void *handle = 0;
  printf("status %d\\n", ((int (*)(int, void **))find(library, "ncDeviceCreate"))(0, &handle));
  find(library, "ncGraphAllocate"); find(library, "ncFifoCreate"); find(library, "ncGraphQueueInferenceWithFifoElem");
"""


@pytest.mark.parametrize("clock", ["std", "max"])
def test_libedgetpu_lists_no_device_and_has_the_delegates_entry_points(
    build: bitbake.Build, tmp_path: Path, clock: str
) -> None:
    built = make(build, recipe("libedgetpu_*"))
    directory = built.split / f"libedgetpu-clock-{clock}/usr/lib/edgetpu/{clock}"
    said = run_aarch64(built, OPEN % ("libedgetpu.so.1.0", EDGETPU), tmp_path, directory)
    assert "devices 0" in said
    assert "RuntimeVersion(14)" in said
    assert "delegate refused" in said
    dynamic = subprocess.run(
        ["readelf", "-d", directory / "libedgetpu.so.1.0"], capture_output=True, text=True, check=True
    ).stdout
    assert "[libedgetpu.so.1]" in dynamic


def test_the_two_clocks_of_libedgetpu_are_not_the_same_code(build: bitbake.Build) -> None:
    built = make(build, recipe("libedgetpu_*"))
    std, fast = (built.split / f"libedgetpu-clock-{c}/usr/lib/edgetpu/{c}/libedgetpu.so.1.0" for c in ("std", "max"))
    assert std.read_bytes() != fast.read_bytes()


@pytest.mark.parametrize(("version", "calls"), [("1.12.01.01", MVNC_1), ("2.10.01.01", MVNC_2)])
def test_libmvnc_finds_no_stick(build: bitbake.Build, tmp_path: Path, version: str, calls: str) -> None:
    built = make(build, recipe(f"libmvnc_{version}"))
    said = run_aarch64(built, OPEN % ("libmvnc.so.0", calls), tmp_path, built.split / "libmvnc/usr/lib")
    assert "status -4" in said  # MVNC_DEVICE_NOT_FOUND, NC_DEVICE_NOT_FOUND
    (module,) = built.split.glob("python3-mvnc/usr/lib/python3*/site-packages/mvnc/mvncapi.py")
    assert 'CDLL("libmvnc.so.0")' in module.read_text()
    assert list(module.parent.glob("__pycache__/mvncapi.*.pyc"))


def test_pycoral_is_imported_from_its_package(build: bitbake.Build) -> None:
    built = make(build, recipe("python3-pycoral_*"))
    (site,) = built.split.glob("python3-pycoral/usr/lib/python3*/site-packages")
    assert {path.name.split(".")[0] for path in site.glob("pycoral/utils/__pycache__/*.pyc")} >= {"edgetpu", "dataset"}
    program = "import pycoral.adapters.classify, pycoral.adapters.detect, pycoral.adapters.segment, pycoral.utils.dataset, pycoral.utils.edgetpu"
    environment = os.environ | {"PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_the_wheel_recipe_holds_one_interpreter_for_the_releases_python(build: bitbake.Build) -> None:
    built = make(build, recipe("python3-ai-edge-litert-bin_*"))
    (site,) = built.split.glob("python3-ai-edge-litert-bin/usr/lib/python3*/site-packages")
    assert (site / "ai_edge_litert/interpreter.py").is_file()
    assert list(site.glob(f"ai_edge_litert/*cpython-{packages.PYTHON}-aarch64-linux-gnu.so")) or list(
        site.glob("ai_edge_litert/_pywrap*.so")
    )
