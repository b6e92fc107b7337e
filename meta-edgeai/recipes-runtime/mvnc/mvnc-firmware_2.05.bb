SUMMARY = "Firmware of the first Intel Neural Compute Stick"
DESCRIPTION = "Taken from the history of NCSDK's own repository; Intel's download server is gone. Not redistributable: never \
in an image unless the user accepts Intel's licence with LICENSE_FLAGS_ACCEPTED += \"commercial_intel-movidius\"."
HOMEPAGE = "https://movidius.github.io/ncsdk/"
BUGTRACKER = "https://github.com/movidius/ncsdk/issues"
SECTION = "kernel/firmware"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "Intel-Software-Tools"
LICENSE_FLAGS = "commercial_intel-movidius"
# The terms as they lay beside each of the two files: what the user accepts is checked like a source.
LIC_FILES_CHKSUM = " \
    file://LICENSE;md5=05b1939845b405db6b10a8050e4aa40c \
    file://${UNPACKDIR}/v1/LICENSE;md5=05b1939845b405db6b10a8050e4aa40c \
"

# nobranch: two commits that only pull-request references of that repository reach.
SRC_URI = " \
    git://github.com/movidius/ncsdk.git;protocol=https;nobranch=1;name=v1;subpath=api;destsuffix=v1 \
    git://github.com/movidius/ncsdk.git;protocol=https;nobranch=1;name=v2;subpath=api;destsuffix=v2 \
"
SRCREV_v1 = "fd8fd034e52998aea529b955f50f697cf5d68630"
SRCREV_v2 = "305fc9ecd8b02b6a064c25e0bc8527d60a0b54d0"
SRCREV_FORMAT = "v1_v2"
S = "${UNPACKDIR}/v2"
UPSTREAM_CHECK_COMMITS = "1"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

MVNC_V1_SHA256 = "bd0ef7bed794379d4c77f4d2434dfa0da905acdd2abbf8df64a23d69cc5a49c0"
MVNC_V2_SHA256 = "2f3d7a12e45724fe8cbc5d793cbdf9de50ee6cc0c967ea8b7334b4de7e543c72"

# libmvnc looks beside itself. The driver's version decides which of the two it opens.
do_install() {
    install -d ${D}${nonarch_libdir}/mvnc
    install -m 0644 ${UNPACKDIR}/v1/src/mvnc/MvNCAPI.mvcmd ${D}${nonarch_libdir}/mvnc/
    install -m 0644 ${UNPACKDIR}/v2/src/mvnc/MvNCAPI-ma2450.mvcmd ${D}${nonarch_libdir}/mvnc/
    cd ${D}${nonarch_libdir}/mvnc
    echo "${MVNC_V1_SHA256}  MvNCAPI.mvcmd" | sha256sum -c - || bbfatal "the API v1 firmware is not the one this recipe was written for"
    echo "${MVNC_V2_SHA256}  MvNCAPI-ma2450.mvcmd" | sha256sum -c - || bbfatal "the API v2 firmware is not the one this recipe was written for"
}

FILES:${PN} = "${nonarch_libdir}/mvnc"
