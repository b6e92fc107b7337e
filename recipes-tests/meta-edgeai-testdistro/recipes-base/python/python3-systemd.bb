SUMMARY = "TEST ONLY: Debian's systemd-python"
inherit debian-repack
DEPENDS = "glibc python3"
RDEPENDS:${PN} = "python3 debian-libs"
