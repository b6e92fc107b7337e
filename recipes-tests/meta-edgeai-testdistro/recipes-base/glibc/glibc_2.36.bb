SUMMARY = "TEST ONLY: Debian's C and C++ run time"
SKIP_FILEDEPS = "0"
EXCLUDE_FROM_SHLIBS = ""
inherit debian-repack
do_install:append() {
    ln -s . ${D}/usr/lib/aarch64-linux-gnu
    # C.UTF-8 is built in; a compiled one would make do_rootfs ask for a locale archive
    rm -rf ${D}/usr/lib/locale
    # found in the multiarch directory's own name as well: Debian's ldconfig and loader search it
    rm -rf ${D}/etc/ld.so.conf.d
    printf '/usr/lib\n' > ${D}/etc/ld.so.conf
}
