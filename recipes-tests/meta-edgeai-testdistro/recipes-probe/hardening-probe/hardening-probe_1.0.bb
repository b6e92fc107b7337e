SUMMARY = "TEST ONLY: a program and a library whose machine code shows how the distribution compiles"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://probe.c file://program.c"
S = "${UNPACKDIR}"
B = "${WORKDIR}/build"
do_configure[noexec] = "1"

# Not a flag of its own: everything comes from CC, CFLAGS and LDFLAGS, as every recipe's does.
do_compile() {
    ${CC} ${CFLAGS} -fPIC -shared ${LDFLAGS} -Wl,-soname,libhardening-probe.so.1 ${S}/probe.c -o ${B}/libhardening-probe.so.1
    ${CC} ${CFLAGS} ${LDFLAGS} ${S}/program.c ${B}/libhardening-probe.so.1 -o ${B}/hardening-probe
}
do_compile[dirs] = "${B}"

do_install() {
    install -D -m 0755 ${B}/hardening-probe ${D}${bindir}/hardening-probe
    install -D -m 0755 ${B}/libhardening-probe.so.1 ${D}${libdir}/libhardening-probe.so.1
}

FILES:${PN} = "${bindir} ${libdir}"
