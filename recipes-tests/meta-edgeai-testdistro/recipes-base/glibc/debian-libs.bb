SUMMARY = "TEST ONLY: Debian's shared libraries"
inherit debian-repack
DEPENDS = "glibc"
