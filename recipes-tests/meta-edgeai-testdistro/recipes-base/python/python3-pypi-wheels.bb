SUMMARY = "TEST ONLY: aarch64 wheels of the Python index, one package each"
DESCRIPTION = "Which ones, and what each needs, is conf/wheels.toml."
LICENSE = "CLOSED"
INHIBIT_DEFAULT_DEPS = "1"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
# Package QA judges our recipes; these are other people's binaries
do_package_qa[noexec] = "1"
SKIP_FILEDEPS = "1"
AUTO_LIBNAME_PKGS = ""
SPDX_INCLUDE_SOURCES = "0"
DEPENDS = "glibc python3"
S = "${UNPACKDIR}"
SITE = "/usr/lib/python${PYTHON_BASEVERSION}/site-packages"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
EXCLUDE_FROM_SHLIBS = "1"
inherit byte-compiled

python () {
    import json, os, tomllib, zipfile
    table_path = d.expand("${TESTDISTRO_LAYERDIR}/conf/wheels.toml")
    wheels = d.getVar("TESTDISTRO_WHEEL_DIR")
    index_path = os.path.join(wheels, "index.json")
    for path in (table_path, index_path):
        bb.parse.mark_dependency(d, path)
    if not os.path.exists(index_path):
        raise bb.parse.SkipRecipe(f"{index_path} is missing: run fetch-debs")
    with open(table_path, "rb") as f:
        table = tomllib.load(f)
    with open(index_path) as f:
        index = json.load(f)
    missing = [name for name in table if name not in index]
    if missing:
        raise bb.parse.SkipRecipe(f"{' '.join(missing)} not in {wheels}: run fetch-debs")
    packages, uris, files = [], [], []
    for name, entry in table.items():
        path = os.path.join(wheels, index[name])
        with zipfile.ZipFile(path) as archive:
            tops = sorted({n.split("/")[0] for n in archive.namelist()})
        tops += [f"__pycache__/{top[:-3]}.*" for top in tops if top.endswith(".py")]
        package = "python3-" + name
        packages.append(package)
        uris.append(f"file://{path};unpack=0")
        files.append(path)
        d.setVar("FILES:" + package, " ".join(d.getVar("SITE") + "/" + top for top in tops))
        d.setVar("RDEPENDS:" + package, " ".join(["python3", "debian-libs"] + ["python3-" + n for n in entry.get("needs", [])]))
    d.setVar("PACKAGES", " ".join(packages))
    d.appendVar("PROVIDES", " " + " ".join(packages))
    d.setVar("SRC_URI", " ".join(uris))
    d.setVar("WHEEL_FILES", " ".join(files))
}

do_install() {
    install -d ${D}${SITE}
    for wheel in ${WHEEL_FILES}; do unzip -q -o $wheel -d ${D}${SITE}; done
    # scripts and data of a wheel go elsewhere; none is needed on the image
    rm -rf ${D}${SITE}/*.data
    # nor are the tests inside numpy: a third of its size
    find ${D}${SITE} -type d -name tests -prune -exec rm -rf {} +
    find ${D}${SITE} -type d -exec chmod 755 {} +
    find ${D}${SITE} -type f -exec chmod u=rwX,go=rX {} +
    chown -R root:root ${D}
}
do_install[depends] += "unzip-native:do_populate_sysroot"
