# TEST ONLY: Debian arm64 packages, unpacked and packaged again as one OE package. What is taken and which names it
# answers to is data: conf/replaced.toml, table [${BPN}].
LICENSE ?= "CLOSED"
INHIBIT_DEFAULT_DEPS = "1"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
PACKAGES = "${PN}"
FILES:${PN} = "/"
ALLOW_EMPTY:${PN} = "1"
# Package QA judges our recipes. These files are Debian's: other paths, stripped already, other library names.
do_package_qa[noexec] = "1"
# Only what our binaries link to (glibc, debian-libs) is looked into; for the rest, names are enough.
SKIP_FILEDEPS ?= "1"
EXCLUDE_FROM_SHLIBS ?= "1"
AUTO_LIBNAME_PKGS = ""
SPDX_INCLUDE_SOURCES = "0"
S = "${UNPACKDIR}"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

inherit replaced-names

python () {
    import json, os
    debs = d.getVar("TESTDISTRO_DEB_DIR")
    index = os.path.join(debs, "index.json")
    bb.parse.mark_dependency(d, index)
    if not os.path.exists(index):
        raise bb.parse.SkipRecipe(f"{index} is missing: run fetch-debs")
    with open(index) as f:
        files = json.load(f)
    wanted = replaced_entry(d).get("debs", [])
    missing = [name for name in wanted if name not in files]
    if missing:
        raise bb.parse.SkipRecipe(f"{' '.join(missing)} not in {debs}: run fetch-debs")
    d.setVar("DEB_FILES", " ".join(os.path.join(debs, files[name]) for name in wanted))
    d.setVar("SRC_URI", " ".join(f"file://{debs}/{files[name]};unpack=0" for name in wanted))
}
# the index is only a way to find the files; their own checksums are in the signature
DEB_FILES[vardepvalue] = ""

do_install() {
    for deb in ${DEB_FILES}; do dpkg-deb -x $deb ${D}; done
    for x in bin sbin lib; do
        if [ -d ${D}/$x ] && [ ! -L ${D}/$x ]; then install -d ${D}/usr/$x; cp -a ${D}/$x/. ${D}/usr/$x/; rm -rf ${D}/$x; fi
    done
    # OE looks for libraries in /usr/lib: flatten Debian's multiarch directory (glibc carries the link back)
    if [ -d ${D}/usr/lib/aarch64-linux-gnu ]; then
        rm -f ${D}/usr/lib/ld-linux-aarch64.so.1
        cp -a ${D}/usr/lib/aarch64-linux-gnu/. ${D}/usr/lib/
        rm -rf ${D}/usr/lib/aarch64-linux-gnu
    fi
    for x in doc man locale lintian bug info bash-completion zsh; do rm -rf ${D}/usr/share/$x; done
    rm -rf ${D}/etc/skel
    chown -R root:root ${D}
}
do_install[depends] += "dpkg-native:do_populate_sysroot"
