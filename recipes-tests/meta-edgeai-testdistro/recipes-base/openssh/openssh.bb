SUMMARY = "TEST ONLY: Debian's OpenSSH"
inherit debian-repack
DEPENDS = "glibc debian-libs"
RDEPENDS:${PN} = "debian-base"
do_install:append() {
    rm -rf ${D}/etc/init.d ${D}/etc/ufw ${D}/etc/ssh/moduli
    install -d ${D}/etc/systemd/system/multi-user.target.wants
}
