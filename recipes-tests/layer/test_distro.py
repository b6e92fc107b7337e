"""The distribution `edgeai`: hardened alike on both releases, and what was built with it shows it."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest

from layer.test_recipes import MASK, build_directory
from layer.workspace import RELEASES
from rig import bitbake, paths

#: What a compiler or linker is told, and what has to be in the words of both releases.
HARDENING = {
    "TARGET_CC_ARCH": ("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Werror=format-security", "-mbranch-protection=standard"),
    "TARGET_LDFLAGS": ("-Wl,-z,relro,-z,now",),
    "GCCPIE": ("--enable-default-pie",),
    "DISABLE_STATIC": ("--disable-static",),
}  # fmt: skip
#: Of a masked configuration: a recipe of ours that is compiled, and one of oe-core.
RECIPE = "meta-edgeai/recipes-runtime/libedgetpu/libedgetpu_16.0.bb"
OS_RELEASE = "openembedded-core/meta/recipes-core/os-release/os-release.bb"
VERSION = 'EDGEAI_IMAGE_VERSION = "2.4.1"\n'


@functools.cache
def environment(release: str, recipe: str, settings: str) -> dict[str, str]:
    """Every variable as a recipe sees it."""
    own = build_directory(release, "raspberrypi4-64")
    file = own.build.project / recipe
    if not file.is_file():
        file = own.layers / recipe
    done = own.run("bitbake", "-b", str(file), "-e", settings=MASK + settings, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    return dict(re.findall(r'^(?:export )?(\S+)="(.*)"$', done.stdout, re.M))


def variables(release: str, *names: str, recipe: str = RECIPE, settings: str = "") -> dict[str, str]:
    """Values of some variables as a recipe sees them; "" where one is not set."""
    return {name: environment(release, recipe, settings).get(name, "") for name in names}


@pytest.mark.parametrize("release", RELEASES)
def test_both_releases_compile_with_the_same_hardening(release: str) -> None:
    values = variables(release, *HARDENING)
    for name, words in HARDENING.items():
        for word in words:
            assert word in values[name], f"{release}: {name} = {values[name]}"


@pytest.mark.parametrize("release", RELEASES)
def test_native_tools_do_not_depend_on_the_build_host(release: str) -> None:
    values = variables(release, "INHERIT", "INHERIT_DISTRO", "UNINATIVE_VERSION")
    assert "uninative" in (values["INHERIT"] + " " + values["INHERIT_DISTRO"]).split()
    assert values["UNINATIVE_VERSION"]


@pytest.mark.parametrize("release", RELEASES)
def test_the_distribution_says_name_version_and_release(release: str) -> None:
    names = (
        "DISTRO",
        "DISTRO_CODENAME",
        "OS_RELEASE_FIELDS",
        "IMAGE_ID",
        "IMAGE_VERSION",
        "INIT_MANAGER",
        "DISTRO_FEATURES",
    )
    values = variables(release, *names, recipe=OS_RELEASE, settings=VERSION)
    assert (values["DISTRO"], values["DISTRO_CODENAME"], values["INIT_MANAGER"]) == ("edgeai", release, "systemd")
    assert {"IMAGE_ID", "IMAGE_VERSION"} <= set(values["OS_RELEASE_FIELDS"].split())
    assert (values["IMAGE_ID"], values["IMAGE_VERSION"]) == ("edgeai-image", "2.4.1")
    assert {"systemd", "usrmerge"} <= set(values["DISTRO_FEATURES"].split())


@pytest.mark.parametrize("release", RELEASES)
def test_recipes_of_other_layers_keep_their_maintainers(release: str) -> None:
    theirs = variables(release, "RECIPE_MAINTAINER", recipe=OS_RELEASE, settings=VERSION)
    assert theirs["RECIPE_MAINTAINER"], f"{release}: os-release has lost its maintainer"
    assert variables(release, "RECIPE_MAINTAINER")["RECIPE_MAINTAINER"].startswith("edgeai-rpi maintainers")


def readelf(path: Path) -> str:
    return subprocess.run(["readelf", "--wide", "-hlds", path], capture_output=True, text=True, check=True).stdout


def weaknesses(path: Path) -> list[str]:
    """What an ELF file lacks of: position independence, RELRO, immediate binding, a stack that is not executable, canaries."""
    text = readelf(path)
    missing = []
    if not re.search(r"Type:\s+DYN", text):
        missing.append("PIE")
    if "GNU_RELRO" not in text:
        missing.append("RELRO")
    if not re.search(r"\(FLAGS(_1)?\).*\b(BIND_NOW|NOW)\b", text):
        missing.append("BIND_NOW")
    if not re.search(r"GNU_STACK\s.*\sRW\s", text):
        missing.append("non-executable stack")
    if "__stack_chk_fail" not in text:
        missing.append("stack protector")
    return missing


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_a_program_and_a_library_that_were_built_are_hardened(release: str) -> None:
    """Compiled by real BitBake in the test distribution: the product's distribution with Debian's compiler."""
    try:
        build = bitbake.prepare(release)
    except paths.Missing as reason:
        pytest.skip(str(reason))
    bitbake.build_image(build, "hardening-probe")
    (directory,) = build.tmp.glob("work/*/hardening-probe/1.0*/packages-split/hardening-probe")
    program, library = directory / "usr/bin/hardening-probe", directory / "usr/lib/libhardening-probe.so.1"
    assert {path.name: weaknesses(path) for path in (program, library)} == {program.name: [], library.name: []}
    # What -D_FORTIFY_SOURCE makes of strcpy, and what -mbranch-protection puts before a function's first instruction.
    assert "__strcpy_chk" in readelf(program)
    listing = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"<probe_copy(@@Base)?>:\n\s+\w+:\s+(paciasp|bti\s+c)", listing), listing[:2000]
