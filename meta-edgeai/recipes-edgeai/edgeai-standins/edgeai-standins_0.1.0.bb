SUMMARY = "TEST ONLY: libraries that answer like the runtimes of accelerators"
DESCRIPTION = "Stand-ins for libedgetpu and libmvnc, which the on-target cases load where no stick is plugged in. \
In no image by itself; the daemon looks for nothing of it."
SECTION = "devel"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "tests/standins"
require ../edgeaid/edgeai-source.inc

do_configure[noexec] = "1"

do_compile() {
    CC="${CC} ${CFLAGS} ${LDFLAGS}" python3 ${S}/tests/standins/build.py ${B}/libraries
}

do_install() {
    install -d ${D}${libdir}/edgeai-standins
    install -m 0755 ${B}/libraries/*.so ${D}${libdir}/edgeai-standins/
}

FILES:${PN} = "${libdir}/edgeai-standins"
