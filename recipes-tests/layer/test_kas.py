"""Every combination that the documents name is a configuration that kas accepts."""

from __future__ import annotations

import re

import pytest
import yaml

from layer.workspace import MACHINES, RELEASES, Workspace, feature_names, kas_files, load_script, merge, merged
from rig import bitbake
from rig.paths import TOP

COMMIT = re.compile(r"[0-9a-f]{40}")
PLACES = ("mirror", "offline-sources")
RUNTIMES = ("tensorflow", "edgetpu", "edgetpu-pcie", "ncs", "ncs2", "k210", "grpc", "frigate")


def conf_of(config: dict) -> str:
    return "\n".join(config["local_conf_header"].values())


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_has_a_configuration_with_pinned_layers(release: str, machine: str) -> None:
    config = merged(release=release, machine=machine)
    assert config["machine"] == machine
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


@pytest.mark.parametrize("path", sorted((TOP / "kas").rglob("*.yml")), ids=lambda p: str(p.relative_to(TOP)))
def test_every_file_says_what_it_is_for_and_keeps_to_the_old_format(path) -> None:
    text = path.read_text()
    assert yaml.safe_load(text)["header"]["version"] == 14, "a newer number shuts out older kas for nothing"
    if path.parent.name != "release" and path.parent.name != "machine":
        assert text.startswith("# yaml-language-server")
    for name, repo in (yaml.safe_load(text).get("repos") or {}).items():
        assert "refspec" not in (repo or {}), f"{name}: commit and branch, not refspec"


def test_keys_of_local_conf_are_unique_to_their_file() -> None:
    seen: dict[str, str] = {}
    for path in sorted((TOP / "kas").rglob("*.yml")):
        for key in yaml.safe_load(path.read_text()).get("local_conf_header") or {}:
            assert key not in seen, f"{key} in {path} overwrites the one in {seen.get(key)}"
            seen[key] = str(path)


def test_no_feature_puts_firmware_under_intels_licence_into_an_image() -> None:
    config = merged(*feature_names())
    for line in conf_of(config).splitlines():
        if not line.startswith("#"):
            assert "commercial" not in line
            assert "firmware" not in line


def named_combinations() -> list[str]:
    """Arguments of kas, from every `scripts/build` and `kas build` that a document shows."""
    build = load_script("build")
    found = []
    documents = [
        TOP / "README.md",
        *(TOP / "meta-edgeai").glob("*.md"),
        *(TOP / "daemon").rglob("docs/*.md"),
        TOP / "scripts/build",
    ]
    for path in documents:
        for line in path.read_text().splitlines():
            if shown := re.match(r"\s*(?:\./)?scripts/build ((?:[\w./=-]+ ?)+)", line):
                found.append(build.kas_files(build.parse(shown[1].split())))
            elif shown := re.match(r"\s*kas build (\S+)", line):
                found.append(shown[1])
    return sorted(set(found))


def test_every_combination_that_a_document_names_is_one_configuration() -> None:
    combinations = named_combinations()
    assert len(combinations) > 10
    for files in combinations:
        config = merge(files)
        assert config["machine"] in MACHINES
        assert config["target"] == "edgeai-image"


@pytest.mark.parametrize("machine", MACHINES)
def test_kas_dump_resolves_every_machine_with_the_runtimes(wrynose: Workspace, machine: str) -> None:
    features = () if machine == "qemuarm64" else ("edgetpu", "ncs", "ncs2", "k210")
    done = bitbake.run(
        wrynose.build, "kas", "dump", "--resolve-refs", kas_files("wrynose", machine, *features), timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"machine: {machine}" in done.stdout
    assert "WARNING" not in done.stdout, done.stdout
