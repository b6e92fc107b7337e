"""Rules of the layer's files that need no BitBake."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rig.paths import TOP

LAYER = TOP / "meta-edgeai"
RECIPES = sorted(p for p in LAYER.rglob("*") if p.suffix in (".bb", ".bbappend", ".inc", ".bbclass"))

#: Recipes and packages of public layers that a build may have beside this one, and their layers. With equal names one would hide the other.
TAKEN = {
    "openvino-inference-engine": "meta-openvino", "open-model-zoo": "meta-openvino",
    "flatbuffers-tflite": "meta-qcom-distro", "ai-edge-litert": "meta-qcom-distro", "python3-ai-edge-litert": "meta-qcom-distro",
    "tensorflow-lite": "meta-tensorflow", "keras": "meta-tensorflow", "bazel-native": "meta-tensorflow",
    "libedgetpu-std": "meta-tensorflow-lite", "libedgetpu-max": "meta-tensorflow-lite", "litert": "meta-tensorflow-lite",
    "libtensorflow-lite": "meta-tensorflow-lite", "python3-tensorflow-lite": "meta-tensorflow-lite",
    "gasket-driver": "meta-coral-ai", "flatbuffers": "meta-oe", "python3-flatbuffers": "meta-oe", "libpisp": "meta-raspberrypi",
}  # fmt: skip

#: oelint rules that are off, and why.
SUPPRESSED = {
    "oelint.vars.homepageping": "asks the network",
    "oelint.vars.homepageprefix": "the project's address is one variable, EDGEAI_PROJECT_URL, which a release sets",
    "oelint.var.licenseremotefile": "licence texts of oe-core are meant: several upstreams' own text is not known before a fetch",
    "oelint.var.order": "variables stand where they are explained",
    "oelint.vars.specific": "machine overrides of power profiles are the point",
    "oelint.task.noanonpython": "skips and fatal errors at parse time are what these functions are for",
    "oelint.var.filesoverride": "FILES of a recipe with few paths is set whole, so that a new path is noticed by QA",
    "oelint.vars.insaneskip": "each has its reason above it; another test checks that",
    "oelint.vars.fileextrapaths": "two recipes of one include share its files directory; the daemon lies beside the layer",
    "oelint.vars.outofcontext": "same",
    "oelint.vars.downloadfilename": "Intel's name of the file",
    "oelint.vars.srcuridomains": "Eigen lives on GitLab",
    "oelint.file.includerelpath": "the source of one project, used by two recipes",
    "oelint.var.mandatoryvar.SRC_URI": "edgeai-power writes its files itself",
    "oelint.var.badimagefeature.tools-debug": "edgeai-image-dev is the image for a desk",
    "oelint.vars.noncoreoverride": "it names our own variables, and the others have the override edgeai-device; another test checks that",
}


def test_oelint_finds_nothing() -> None:
    if not shutil.which("oelint-adv"):
        pytest.skip("oelint-adv is not installed")
    files = [str(p) for p in RECIPES if p.suffix in (".bb", ".bbappend")]
    line = ["oelint-adv", "--release", "wrynose", "--mode", "all", "--hide", "info", "--quiet", "--jobs", "2"]
    for rule in SUPPRESSED:
        line += ["--suppress", rule]
    # Variables that are ours or made of a package's name; any other unknown name is taken for a misspelt one.
    line += ["--constantmods", f"+{TOP / 'recipes-tests/layer/oelint-variables.json'}", "--"]
    done = subprocess.run([*line, *files], capture_output=True, text=True, check=False, cwd=TOP)
    complaints = [one for one in (done.stdout + done.stderr).splitlines() if ":error:" in one or ":warning:" in one]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(LAYER)))
def test_every_insane_skip_has_its_reason_above_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("INSANE_SKIP"):
            assert before.startswith("# Reason:"), f"{path.name}: {line}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(LAYER)))
def test_every_source_without_a_branch_has_its_reason_above_it(path: Path) -> None:
    text = path.read_text()
    for at in re.finditer("nobranch=1", text):
        assert re.findall(r"^# nobranch: .+", text[: at.start()], re.MULTILINE), (
            f"{path.name}: nobranch without a reason"
        )


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(LAYER)))
def test_no_class_with_a_hyphen_exports_functions(path: Path) -> None:
    if path.suffix == ".bbclass":
        assert "-" not in path.stem


def test_every_patch_says_where_it_stands_upstream() -> None:
    form = re.compile(
        r"^Upstream-Status: (Submitted \[.+\]|Backport \[.+\]|Denied( \[.+\])?|Inactive-Upstream \[lastcommit: [\d-]+.*\]|Pending|Inappropriate \[oe[- ]specific.*\])",
        re.MULTILINE,
    )
    for path in LAYER.rglob("*.patch"):
        text = path.read_text(errors="replace")
        assert form.search(text), f"{path} has no Upstream-Status"
        assert re.search(r"^Signed-off-by: .+ <.+@.+>$", text, re.M), f"{path} has no Signed-off-by"


def test_bazel_is_limited_globally_and_no_append_is_needed_for_it() -> None:
    text = (LAYER / "conf/layer.conf").read_text()
    assert 'do_bazel_compile[number_threads] = "1"' in text
    assert 'INHERIT += "edgeai_bazel"' in text
    for append in LAYER.glob("dynamic-layers/meta-tensorflow/**/*.bbappend"):
        assert "edgeai_bazel" not in append.read_text()


def test_the_collection_does_not_collide_with_another_vendors() -> None:
    text = (LAYER / "conf/layer.conf").read_text()
    assert 'BBFILE_COLLECTIONS += "edgeai-rpi"' in text
    assert 'LAYERSERIES_COMPAT_edgeai-rpi = "wrynose scarthgap"' in text


@pytest.mark.parametrize("path", sorted((LAYER / "lib/oeqa/runtime/cases").glob("*.py")), ids=lambda p: p.stem)
def test_on_target_cases_are_python_and_skip_where_a_package_is_absent(path: Path) -> None:
    text = path.read_text()
    compile(text, str(path), "exec")
    assert "OEHasPackage" in text
    assert path.stem in (TOP / "kas/feature/testimage.yml").read_text()


def test_no_recipe_or_package_has_a_name_of_another_layer() -> None:
    names = set()
    for path in LAYER.rglob("*.bb"):
        recipe = path.stem.split("_")[0]
        names.add(recipe)
        for text in (path.read_text(), *(p.read_text() for p in path.parent.glob("*.inc"))):
            for listed in re.findall(r'^(?:PACKAGES|PACKAGE_BEFORE_PN) (?:=\+|\+=|=) "(.*)"$', text, re.MULTILINE):
                names |= {name.replace("${PN}", recipe) for name in listed.split()}
    assert {"libedgetpu-clock-std", "python3-mvnc", "edgeaid-toolkit"} <= names
    assert names & set(TAKEN) == set()


@pytest.mark.parametrize("path", [p for p in RECIPES if p.suffix in (".bb", ".inc")], ids=lambda p: p.name)
def test_python_modules_that_a_recipe_installs_are_compiled(path: Path) -> None:
    text = path.read_text()
    if not re.search(r"^do_install\b.*?^}", text, re.M | re.S) or "PYTHON_SITEPACKAGES_DIR" not in text:
        return
    classes = " ".join(re.findall(r"^inherit (.*)$", text, re.M)).split()
    assert {"edgeai_bytecode", "python_setuptools_build_meta"} & set(classes), (
        f"{path.name} installs modules without their .pyc"
    )


@pytest.mark.parametrize("path", sorted((LAYER / "dynamic-layers").rglob("*.*")), ids=lambda p: p.name)
def test_a_recipe_of_another_layer_changes_only_where_edgeai_conf_is_in_force(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"^([A-Za-z][\w:${}.-]*?)(?:\[\w-]+\])?\s*(?:\?\?=|\?=|:=|\+=|=\+|\.=|=\.|=)", text, re.M):
        assert name == "EDGEAI_CONFIG_TXT" or name.endswith(":edgeai-device"), f"{path.name}: {name}"
    for function in re.findall(r"^python \(\) \{.*?^\}", text, re.M | re.S):
        assert '"edgeai-device" in d.getVar("OVERRIDES")' in function, path.name
    assert 'DISTROOVERRIDES:append = ":edgeai-device"' in (LAYER / "conf/edgeai.conf").read_text()


def test_an_image_installs_what_its_machine_names() -> None:
    # Neither packagegroup-core-boot nor the image's own groups have kernel modules or firmware.
    group = (LAYER / "recipes-core/packagegroups/packagegroup-edgeai-machine.bb").read_text()
    assert 'RRECOMMENDS:${PN} = "${MACHINE_EXTRA_RRECOMMENDS}"' in group
    assert 'RDEPENDS:${PN} = "${MACHINE_EXTRA_RDEPENDS}"' in group
    (installed,) = re.findall(
        r'^IMAGE_INSTALL = "(.*?)"$', (LAYER / "recipes-core/images/edgeai-image.inc").read_text(), re.M | re.S
    )
    assert "packagegroup-edgeai-machine" in installed.split()
