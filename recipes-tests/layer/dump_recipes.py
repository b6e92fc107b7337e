"""Run inside a build directory: every recipe of the layer and what BitBake makes of it, as JSON.

    python3 dump_recipes.py COLLECTION OUT [NAME...]

NAME...: recipes of other layers to add. Uses BitBake's own tinfoil, so appends, overrides and anonymous functions count.
"""

import json
import sys
from typing import Any

import bb.tinfoil

VARIABLES = (
    "PN PV SUMMARY DESCRIPTION HOMEPAGE SECTION LICENSE LICENSE_FLAGS LIC_FILES_CHKSUM SRC_URI SRCREV SRCREV_FORMAT S UNPACKDIR WORKDIR "
    "DEPENDS PACKAGES PROVIDES EXTRA_OECMAKE EXTRA_OEMAKE CUSTOM_BAZEL_FLAGS BAZEL_STARTUP_OPTIONS TF_ARGS_EXTRA BAZEL_JOBS "
    "EDGEAI_BAZEL_JOBS EDGEAI_BAZEL_OPTIONS do_compile INSANE_SKIP UPSTREAM_CHECK_URI UPSTREAM_CHECK_REGEX UPSTREAM_CHECK_GITTAGREGEX "
    "UPSTREAM_CHECK_COMMITS UPSTREAM_VERSION_UNKNOWN PACKAGE_ARCH RECIPE_MAINTAINER IMAGE_INSTALL IMAGE_FEATURES SYSTEMD_SERVICE "
    "USERADD_PARAM GROUPADD_PARAM PYTHON_BASEVERSION RPI_EXTRA_CONFIG EDGEAI_POWER_GOVERNOR CVE_PRODUCT"
).split()


def describe(tinfoil: Any, name: str) -> dict[str, Any]:
    d = tinfoil.parse_recipe(name)
    facts: dict[str, Any] = {v: d.getVar(v) for v in VARIABLES}
    facts["FILE"] = d.getVar("FILE")
    facts["skipped"] = d.getVar("__SKIPPED", False)
    facts["inherits_packagegroup"] = bb.data.inherits_class("packagegroup", d)
    facts["inherits_image"] = bb.data.inherits_class("image", d)
    facts["tasks"] = {}
    for task in d.getVar("__BBTASKS", False) or []:
        flags = d.getVarFlags(task) or {}
        facts["tasks"][task] = {
            k: d.getVarFlag(task, k) for k in ("network", "lockfiles", "number_threads", "prefuncs") if flags.get(k)
        }
    packages = (facts["PACKAGES"] or "").split()
    facts["files"] = {p: d.getVar("FILES:" + p) for p in packages}
    facts["rdepends"] = {p: bb.utils.explode_deps(d.getVar("RDEPENDS:" + p) or "") for p in packages}
    facts["rrecommends"] = {p: bb.utils.explode_deps(d.getVar("RRECOMMENDS:" + p) or "") for p in packages}
    facts["rprovides"] = {p: bb.utils.explode_deps(d.getVar("RPROVIDES:" + p) or "") for p in packages}
    facts["service"] = {p: d.getVar("SYSTEMD_SERVICE:" + p) for p in packages}
    facts["users"] = {p: d.getVar("USERADD_PARAM:" + p) for p in packages}
    facts["groups"] = {p: d.getVar("GROUPADD_PARAM:" + p) for p in packages}
    facts["revisions"] = {}
    for uri in (facts["SRC_URI"] or "").split():
        if uri.startswith("git"):
            named = next((part[5:] for part in uri.split(";") if part.startswith("name=")), "")
            facts["revisions"][uri] = (
                d.getVar("SRCREV_" + named) if named and d.getVar("SRCREV_" + named) else d.getVar("SRCREV")
            )
    facts["checksums"] = {}
    for uri in (facts["SRC_URI"] or "").split():
        if uri.startswith("http"):
            named = next((part[5:] for part in uri.split(";") if part.startswith("name=")), "")
            facts["checksums"][uri] = d.getVarFlag("SRC_URI", (named + "." if named else "") + "sha256sum")
    return facts


def main() -> None:
    collection, out, *more = sys.argv[1:]
    with bb.tinfoil.Tinfoil() as tinfoil:
        tinfoil.prepare(quiet=2)
        directory = tinfoil.config_data.getVar("BBFILE_PATTERN_" + collection).lstrip("^")
        recipes: dict[str, dict[str, Any]] = {}
        names = set(more)
        for recipe in tinfoil.all_recipes():
            if recipe.fn.startswith(directory):
                names.add(recipe.pn)
        for name in sorted(names):
            try:
                recipes[name] = describe(tinfoil, name)
            except bb.BBHandledException as error:
                recipes[name] = {"error": str(error)}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(recipes, file, indent=1)


main()
