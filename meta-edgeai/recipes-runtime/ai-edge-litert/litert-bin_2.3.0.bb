SUMMARY = "LiteRT's C library and its headers, Google's build"
DESCRIPTION = "libLiteRt.so of the wheel that PyPI has, for programs in C and C++: environment, compiled model, tensor buffers. \
Headers are those of LiteRT 2.2.0, the newest tag; every function that they declare and that is not inline is in the library."
HOMEPAGE = "https://ai.google.dev/edge/litert"
BUGTRACKER = "https://github.com/google-ai-edge/LiteRT/issues"
SECTION = "libs"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "resolved"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = " \
    file://${UNPACKDIR}/wheel/ai_edge_litert-${PV}.dist-info/licenses/LICENSE;md5=86d3f3a95c324c9479bd8986968f4327 \
    file://LICENSE;md5=86d3f3a95c324c9479bd8986968f4327 \
"

require ai-edge-litert-wheel.inc

SRC_URI += "git://github.com/google-ai-edge/LiteRT.git;branch=main;protocol=https;name=headers;destsuffix=litert"
SRCREV_headers = "145c7523ff08d5e57ab5c582141775eea47da9c7"
SRCREV_FORMAT = "headers"
S = "${UNPACKDIR}/litert"

# Not TensorFlow's name: its version numbers are others, and old ones of TensorFlow would fit.
CVE_PRODUCT = "google:litert"

do_install() {
    install -D -m 0755 ${UNPACKDIR}/wheel/ai_edge_litert/libLiteRt.so ${D}${libdir}/libLiteRt.so
    install -d ${D}${includedir}/litert/c ${D}${includedir}/litert/build_common ${D}${libdir}/pkgconfig
    install -m 0644 ${S}/litert/c/*.h ${D}${includedir}/litert/c/
    # What CMake makes of it for a library with every accelerator interface, as Google's is.
    sed 's/#cmakedefine01 \([A-Z_]*\)/#define \1 0/' ${S}/litert/build_common/build_config.h.in \
        > ${D}${includedir}/litert/build_common/build_config.h
    printf 'Name: LiteRt\nDescription: LiteRT runtime\nVersion: ${PV}\nLibs: -L${libdir} -lLiteRt\nCflags: -I${includedir}\n' \
        > ${D}${libdir}/pkgconfig/litert.pc
}

# The library's own name has no version, upstream.
SOLIBS = ".so"
FILES_SOLIBSDEV = ""
# Reason: the wheel comes stripped; a library without a version in its name belongs to the package that runs it.
INSANE_SKIP:${PN} += "already-stripped dev-so"
