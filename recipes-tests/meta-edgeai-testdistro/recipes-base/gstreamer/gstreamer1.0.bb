SUMMARY = "TEST ONLY: Debian's GStreamer and V4L2 tools"
inherit debian-repack
DEPENDS = "glibc debian-libs"
RDEPENDS:${PN} = "debian-base"
