SUMMARY = "TEST ONLY: headers of Debian's shared libraries"
inherit debian-repack
DEPENDS = "glibc debian-libs"
do_install:append() {
    # the libraries themselves are debian-libs'; static ones would be taken instead of them
    rm -f ${D}/usr/lib/*.a
}
