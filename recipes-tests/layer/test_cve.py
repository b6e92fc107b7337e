"""sbom-cve-check (the tool that the feature `cve` runs on wrynose) reads real bills of material of our recipes, made by BitBake.

The databases are gigabytes; the few records written here have the products and versions of published ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from layer.test_whole import place, together

pytestmark = pytest.mark.slow

#: Recipes of ours with a product name of the databases.
RECIPES = (
    "flatbuffers-edgeai",
    "litert-bin",
    "openvino-myriad",
    "python3-ai-edge-litert-bin",
    "python3-pycoral",
    "python3-tflite-runtime",
)

#: What a report says where the version is among those of a record and nobody explained it.
FITS = "Unpatched: version-in-range"


@dataclass(frozen=True, slots=True)
class Record:
    """A vulnerability: identifier, vendor and product of its CPE, the first version without it, and what a report says of whom."""

    cve: str
    product: str
    fixed: str
    said: dict[str, str]


RECORDS = (
    Record("CVE-2023-25080", "intel:openvino", "2023.0.0", {"openvino-myriad": "Ignored: upstream-wontfix"}),
    # The tool takes 2022.3.2 for a date, which it compares with dates only: the recipe has to say that the fix is in.
    Record("CVE-2023-28405", "intel:openvino", "2022.3.0", {"openvino-myriad": "Patched: fixed-version"}),
    Record("CVE-2022-35991", "google:tensorflow", "2.10.0", {"python3-tflite-runtime": "Patched: fixed-version"}),
    # Made up, for names that have no published record: the point is that the tool would find them.
    Record(
        "CVE-2099-10001", "google:litert", "99.0", dict.fromkeys(("litert-bin", "python3-ai-edge-litert-bin"), FITS)
    ),
    Record("CVE-2099-10002", "google:tensorflow", "99.0", {"python3-tflite-runtime": FITS}),
    Record("CVE-2099-10003", "google:flatbuffers", "99.0", {"flatbuffers-edgeai": FITS}),
    Record("CVE-2099-10004", "google:pycoral", "99.0", {"python3-pycoral": FITS}),
)


def database(directory: Path) -> Path:
    """A git repository in the form of cvelistV5."""
    for record in RECORDS:
        _, year, number = record.cve.split("-")
        cpe = f"cpe:2.3:a:{record.product}:*:*:*:*:*:*:*:*"
        text = {
            "dataType": "CVE_RECORD",
            "dataVersion": "5.1",
            "cveMetadata": {"cveId": record.cve, "state": "PUBLISHED"},
            "containers": {
                "cna": {
                    "providerMetadata": {"orgId": "6dda929c-bb53-4a77-a76d-48e79601a1ce"},
                    "descriptions": [{"lang": "en", "value": f"Versions of {record.product} before {record.fixed}."}],
                    "affected": [
                        {
                            "cpes": [cpe],
                            "defaultStatus": "unaffected",
                            "versions": [
                                {
                                    "version": "0",
                                    "lessThan": record.fixed,
                                    "status": "affected",
                                    "versionType": "custom",
                                }
                            ],
                        }
                    ],
                }
            },
        }
        file = directory / "cves" / year / f"{number[:-3]}xxx" / f"{record.cve}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(text))
    git = ("git", "-C", str(directory), "-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "records"], check=True)
    return directory


@pytest.fixture(scope="module")
def tool() -> str:
    program = shutil.which("sbom-cve-check", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("not installed: sbom-cve-check (pip install sbom-cve-check)")
    return program


@pytest.fixture(scope="module")
def bills() -> dict[str, Path]:
    """The bill of materials of each recipe. BitBake runs the tasks that write it and what they need; nothing is fetched or compiled."""
    own = place("wrynose", "raspberrypi4-64", *together("wrynose"))
    # As conf/include/edgeai-cve-wrynose.inc has it; the rest of that file asks for databases while recipes are parsed.
    done = own.run("bitbake", "-c", "create_recipe_sbom", *RECIPES, timeout=7200, settings='SPDX_INCLUDE_VEX = "all"\n')
    assert done.returncode == 0, done.stdout[-3000:]
    images = own.directory / "tmp/deploy/images"
    return {recipe: next(images.glob(f"*/{recipe}-recipe-sbom.spdx.json")) for recipe in RECIPES}


def reported(tool: str, bill: Path, records: Path, result: Path) -> dict[str, dict[str, str]]:
    """What the tool reports: recipe -> vulnerability -> status and its reason, without the words that may follow."""
    done = subprocess.run(
        [
            tool, "--ignore-default-config", "--disable-auto-updates", "--offline-mode",
            "--add-db", "cve-db-cvelist", str(records), "--sbom-path", str(bill),
            "--export-type", "yocto-cve-check-manifest", "--export-path", str(result),
        ],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        package["name"]: {
            issue["id"]: f"{issue['status']}: {issue.get('detail', '').split(':')[0]}" for issue in package["issue"]
        }
        for package in json.loads(result.read_text())["package"]
    }


def test_the_tool_looks_our_recipes_up_and_reads_what_they_say(
    tool: str, bills: dict[str, Path], tmp_path: Path
) -> None:
    records = database(tmp_path / "cvelist")
    for recipe, bill in bills.items():
        said = reported(tool, bill, records, tmp_path / f"{recipe}.json").get(recipe, {})
        assert said == {record.cve: record.said[recipe] for record in RECORDS if recipe in record.said}, recipe


def test_no_known_vulnerability_of_our_recipes_is_without_a_reason(
    tool: str, bills: dict[str, Path], tmp_path: Path
) -> None:
    records = os.environ.get("EDGEAI_TEST_CVELIST")
    if not records:
        pytest.skip("no database: EDGEAI_TEST_CVELIST names a clone of github.com/CVEProject/cvelistV5 (2 GB)")
    for recipe, bill in bills.items():
        said = reported(tool, bill, Path(records), tmp_path / f"{recipe}.json").get(recipe, {})
        assert [cve for cve, status in said.items() if status.startswith("Unpatched")] == [], recipe
