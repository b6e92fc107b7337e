SUMMARY = "TEST ONLY: Debian's wpa_supplicant"
inherit debian-repack
DEPENDS = "glibc debian-libs"
RDEPENDS:${PN} = "debian-base"
do_install:append() {
    rm -rf ${D}/etc/network
}
