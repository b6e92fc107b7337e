"""Every combination that the documents name is a configuration that kas accepts."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from layer.workspace import (
    BITBAKE_NAMES,
    MACHINES,
    RELEASES,
    RUNTIMES,
    Workspace,
    feature_names,
    kas_files,
    load_script,
    merge,
    merged,
)
from rig import bitbake
from rig.paths import TOP

#: Feature -> package that is under Intel's licence.
FIRMWARE = {"ncs-firmware": "mvnc-firmware", "ncs2-firmware": "openvino-vpu-firmware"}
COMMIT = re.compile(r"[0-9a-f]{40}")
PLACES = ("mirror", "offline-sources", "public-mirrors")


def project_files() -> list[Path]:
    """Every kas file but the user's own."""
    return sorted(p for p in (TOP / "kas").rglob("*.yml") if p.parent.name != "with" and p != TOP / "kas/local.yml")


def conf_of(config: dict[str, Any]) -> str:
    return "\n".join(config["local_conf_header"].values())


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_has_a_configuration_with_pinned_layers(release: str, machine: str) -> None:
    config = merged(release=release, machine=machine)
    assert config["machine"] == BITBAKE_NAMES.get(machine, machine)
    assert config["distro"] == "edgeai"
    assert config["target"] == "edgeai-image"
    pins = config["overrides"]["repos"]
    for name, repo in config["repos"].items():
        if repo and "url" in repo:
            assert COMMIT.fullmatch(pins[name]["commit"]), f"{name} is not pinned"
            assert repo["url"].startswith("https://")
            assert repo.get("branch") or config["defaults"]["repos"]["branch"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("feature", feature_names())
def test_every_feature_is_accepted_on_every_release(release: str, feature: str) -> None:
    config = merged(feature, release=release)
    assert feature in " ".join(config["local_conf_header"]), (
        f"the key in local_conf_header must carry the name {feature}"
    )


@pytest.mark.parametrize("release", RELEASES)
def test_all_features_together_are_one_configuration(release: str) -> None:
    features = [f for f in feature_names() if f not in PLACES and not f.startswith("power-")]
    config = merged(*features, release=release)
    for runtime in RUNTIMES:
        assert f'EDGEAI_RUNTIMES:append = " {runtime}"' in conf_of(config)


@pytest.mark.parametrize("path", project_files(), ids=lambda p: str(p.relative_to(TOP)))
def test_every_file_says_what_it_is_for_and_keeps_to_the_old_format(path: Path) -> None:
    text = path.read_text()
    assert yaml.safe_load(text)["header"]["version"] == 14, "a newer number shuts out older kas for nothing"
    if path.parent.name != "release" and path.parent.name != "machine":
        assert text.startswith("# yaml-language-server")
    for name, repo in (yaml.safe_load(text).get("repos") or {}).items():
        assert "refspec" not in (repo or {}), f"{name}: commit and branch, not refspec"


def test_keys_of_local_conf_are_unique_to_their_file() -> None:
    seen: dict[str, str] = {}
    for path in project_files():
        for key in yaml.safe_load(path.read_text()).get("local_conf_header") or {}:
            assert key not in seen, f"{key} in {path} overwrites the one in {seen.get(key)}"
            seen[key] = str(path)


def test_only_the_features_named_for_it_put_firmware_under_intels_licence_into_an_image() -> None:
    config = merged(*(f for f in feature_names() if f not in FIRMWARE))
    for line in conf_of(config).splitlines():
        if not line.startswith("#"):
            assert "intel-movidius" not in line
            assert "firmware" not in line


@pytest.mark.parametrize(("feature", "package"), FIRMWARE.items())
def test_a_firmware_feature_says_what_is_accepted_and_brings_its_stick(feature: str, package: str) -> None:
    text = (TOP / f"kas/feature/{feature}.yml").read_text()
    assert "# By this file you accept Intel's licence" in text
    assert "meta-edgeai/licenses/Intel-Software-Tools" in text
    assert "read them first" in text
    lines = conf_of(merged(feature)).splitlines()
    assert 'LICENSE_FLAGS_ACCEPTED += "commercial_intel-movidius"' in lines
    assert f'CORE_IMAGE_EXTRA_INSTALL += "{package}"' in lines
    assert f'EDGEAI_RUNTIMES:append = " {feature.removesuffix("-firmware")}"' in lines


@pytest.mark.parametrize("machine", MACHINES)
def test_one_file_builds_a_machine_with_the_default_release(machine: str) -> None:
    single, parts = merge(f"kas/{machine}.yml"), merged(machine=machine)
    assert single.pop("header")
    assert parts.pop("header")
    assert single == parts


def test_the_users_own_file_has_the_last_word() -> None:
    own = TOP / "kas/with/test_kas_last_word.yml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(
        "header:\n  version: 14\ndistro: mine\nlocal_conf_header:\n  99-mine: |\n    EDGEAI_IMAGE_VERSION = '7'\n"
    )
    try:
        config = merge(kas_files("wrynose", "raspberrypi4-64", "grpc") + ":kas/with/test_kas_last_word.yml")
    finally:
        own.unlink()
    assert config["distro"] == "mine"
    assert conf_of(config).endswith("EDGEAI_IMAGE_VERSION = '7'\n")


def test_git_ignores_the_users_own_files() -> None:
    ignored = subprocess.run(
        ["git", "-C", TOP, "-c", f"safe.directory={TOP}", "check-ignore", "kas/local.yml", "kas/with/mine.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.split() == ["kas/local.yml", "kas/with/mine.yml"]


def menu_choices() -> dict[str, set[str]]:
    """Kind of file -> names, of every kas file that the menu can include."""
    choices: dict[str, set[str]] = {}
    for kind, name in re.findall(r'default "kas/(\w+)/([\w-]+)\.yml"', (TOP / "kas/Kconfig").read_text()):
        choices.setdefault(kind, set()).add(name)
    return choices


def test_the_menu_offers_every_machine_release_and_feature() -> None:
    assert menu_choices() == {"machine": set(MACHINES), "release": set(RELEASES), "feature": set(feature_names())}


def test_what_is_chosen_in_the_menu_is_a_configuration_of_kas(tmp_path: Path) -> None:
    kconfiglib = pytest.importorskip("kconfiglib", reason="kconfiglib is not installed")
    from kas.plugins.menu import Menu

    menu = Menu()
    menu.kconf = kconfiglib.Kconfig(str(TOP / "kas/Kconfig"), warn_to_stderr=False)
    assert menu.kconf.warnings == []
    menu.orig_config = {}
    for name in ("RELEASE_SCARTHGAP", "MACHINE_RASPBERRYPI5", "FEATURE_EDGETPU_PCIE", "FEATURE_POWER_FAST"):
        assert menu.kconf.syms[name].set_value("y")
    menu.save_config(str(tmp_path / "config.yaml"), str(TOP))
    chosen = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert chosen["target"] == ["edgeai-image"]
    assert "local_conf_header" not in chosen, "a symbol of the menu would become a variable of BitBake"
    wanted = kas_files("scarthgap", "raspberrypi5", "edgetpu-pcie", "power-fast")
    assert chosen["header"]["includes"] == wanted.split(":")
    assert merge(":".join(chosen["header"]["includes"])) == merge(wanted)


def named_combinations() -> list[str]:
    """Arguments of kas, from every `scripts/build` and `kas build` that a document shows."""
    build = load_script("build")
    combinations = []
    documents = [
        TOP / "README.md",
        *(TOP / "meta-edgeai").glob("*.md"),
        *(TOP / "daemon").rglob("docs/*.md"),
        TOP / "scripts/build",
    ]
    for path in documents:
        for line in path.read_text().splitlines():
            line = re.sub(r"--with \S+ ", "", line)  # files of the reader's own
            if shown := re.match(r"\s*(?:\./)?scripts/build ((?:[\w./=-]+ ?)+)", line):
                combinations.append(build.kas_files(build.parse(shown[1].split())))
            elif shown := re.match(r"\s*kas build (\S+)", line):
                combinations.append(shown[1])
    return sorted(set(combinations))


def test_every_combination_that_a_document_names_is_one_configuration() -> None:
    combinations = named_combinations()
    assert len(combinations) > 10
    for files in combinations:
        config = merge(files)
        assert config["machine"] in {BITBAKE_NAMES.get(machine, machine) for machine in MACHINES}
        assert config["target"] == "edgeai-image"


def test_kas_lock_has_nothing_to_add_to_the_lock_file(wrynose: Workspace) -> None:
    lock = wrynose.build.project / "kas/release/wrynose.lock.yml"
    before = lock.read_text()
    done = bitbake.run(wrynose.build, "kas", "lock", kas_files("wrynose", "raspberrypi4-64", "tensorflow"), timeout=600)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Nothing to lock" in done.stdout
    assert lock.read_text() == before


@pytest.mark.parametrize("machine", MACHINES)
def test_kas_dump_resolves_every_machine_with_the_runtimes(wrynose: Workspace, machine: str) -> None:
    features = () if machine == "qemuarm64" else ("edgetpu", "ncs", "ncs2", "k210")
    done = bitbake.run(
        wrynose.build, "kas", "dump", "--resolve-refs", kas_files("wrynose", machine, *features), timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"machine: {BITBAKE_NAMES.get(machine, machine)}\n" in done.stdout
    assert "WARNING" not in done.stdout, done.stdout
