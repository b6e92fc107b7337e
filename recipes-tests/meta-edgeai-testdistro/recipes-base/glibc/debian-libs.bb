SUMMARY = "TEST ONLY: Debian's shared libraries"
SKIP_FILEDEPS = "0"
EXCLUDE_FROM_SHLIBS = ""
inherit debian-repack
DEPENDS = "glibc"
