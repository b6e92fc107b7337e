SUMMARY = "FlatBuffers of the version TensorFlow Lite's headers were generated with"
DESCRIPTION = "Private copy in a directory of its own: the generated headers of TensorFlow 2.21 compile with exactly \
this version, while the distribution's flatbuffers is another one on every release."
HOMEPAGE = "https://flatbuffers.dev/"
BUGTRACKER = "https://github.com/google/flatbuffers/issues"
SECTION = "libs"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

SRC_URI = "git://github.com/google/flatbuffers.git;branch=master;protocol=https;destsuffix=flatbuffers"
# The commit that the tag v25.9.23 (an object of its own, edbe177) points to.
SRCREV = "187240970746d00bbd26b0f5873ed54d2477f9f3"
S = "${UNPACKDIR}/flatbuffers"

CVE_PRODUCT = "google:flatbuffers"

UPSTREAM_CHECK_GITTAGREGEX = "v(?P<pver>\d+(\.\d+)+)"

inherit cmake

FLATBUFFERS_PREFIX = "${libdir}/flatbuffers-edgeai"
EXTRA_OECMAKE = " \
    -DCMAKE_INSTALL_PREFIX=${FLATBUFFERS_PREFIX} \
    -DCMAKE_INSTALL_INCLUDEDIR=include \
    -DCMAKE_INSTALL_LIBDIR=lib \
    -DCMAKE_INSTALL_BINDIR=bin \
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DFLATBUFFERS_BUILD_TESTS=OFF \
    -DFLATBUFFERS_BUILD_FLATC=${FLATBUFFERS_FLATC} \
    -DFLATBUFFERS_BUILD_FLATHASH=OFF \
"
# The compiler is a tool of the build host.
FLATBUFFERS_FLATC = "OFF"
FLATBUFFERS_FLATC:class-native = "ON"

# Headers and a static library: nothing of it is on a device.
FILES:${PN}-dev += "${FLATBUFFERS_PREFIX}/include ${FLATBUFFERS_PREFIX}/lib/cmake ${FLATBUFFERS_PREFIX}/lib/pkgconfig"
FILES:${PN}-staticdev += "${FLATBUFFERS_PREFIX}/lib/*.a"
ALLOW_EMPTY:${PN} = "1"
SYSROOT_DIRS += "${FLATBUFFERS_PREFIX}"

BBCLASSEXTEND = "native"
