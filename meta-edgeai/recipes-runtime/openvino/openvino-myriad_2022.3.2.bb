SUMMARY = "OpenVINO with the plugin for the Neural Compute Stick 2, and nothing else"
DESCRIPTION = "2022.3 is the last OpenVINO with the MYRIAD plugin. Built without CPU, GPU, Python and model front ends: the \
daemon calls libopenvino_c. The stick's firmware is openvino-vpu-firmware."
HOMEPAGE = "https://www.intel.com/content/www/us/en/developer/tools/openvino-toolkit/overview.html"
BUGTRACKER = "https://github.com/openvinotoolkit/openvino/issues"
SECTION = "libs"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "resolved"
LICENSE = "Apache-2.0 & MIT"
LIC_FILES_CHKSUM = " \
    file://LICENSE;md5=86d3f3a95c324c9479bd8986968f4327 \
    file://thirdparty/json/nlohmann_json/LICENSE.MIT;md5=f969127d7b7ed0a8a63c2bbeae002588 \
"

SRC_URI = " \
    git://github.com/openvinotoolkit/openvino.git;branch=releases/2022/3;protocol=https;name=openvino;destsuffix=openvino \
    git://github.com/nlohmann/json.git;branch=develop;protocol=https;name=json;destsuffix=openvino/thirdparty/json/nlohmann_json \
    file://97-myriad.rules \
"
SRCREV_openvino = "e2c7e4d7b4d6b315c0b62a22438146b28d15f1ee"
SRCREV_json = "bc889afb4c5bf1c0d8ee29ef35eaaf4c8bef8a5d"
SRCREV_FORMAT = "openvino"
DEPENDS += "libusb1 pugixml"
S = "${UNPACKDIR}/openvino"

CVE_PRODUCT = "intel:openvino intel:openvino_toolkit intel:distribution_of_openvino_toolkit"
# INTEL-SA-00842: sbom-cve-check takes 2022.3.2 for a date and compares it with no other version, so each record needs its line.
CVE_STATUS[CVE-2023-28405] = "fixed-version: fixed in 2022.3.0"
# INTEL-SA-00901: a user of the device may read what others process. No release of 2022.3 says that it has the change.
CVE_STATUS[CVE-2023-25080] = "upstream-wontfix: fixed in 2023.0, the first release without the stick's plugin"

UPSTREAM_CHECK_GITTAGREGEX = "(?P<pver>2022\.3\.\d+)$"

inherit cmake pkgconfig

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

# Firmware is looked for on the device, not packed into the build: an empty file stands for the two that CMake wants to download.
OPENVINO_NO_FIRMWARE = "${WORKDIR}/no-firmware.mvcmd"

EXTRA_OECMAKE = " \
    -DENABLE_INTEL_MYRIAD=ON \
    -DENABLE_INTEL_MYRIAD_COMMON=ON \
    -DENABLE_INTEL_CPU=OFF \
    -DENABLE_INTEL_GPU=OFF \
    -DENABLE_INTEL_GNA=OFF \
    -DENABLE_AUTO=OFF \
    -DENABLE_AUTO_BATCH=OFF \
    -DENABLE_HETERO=OFF \
    -DENABLE_MULTI=OFF \
    -DENABLE_TEMPLATE=OFF \
    -DENABLE_OV_ONNX_FRONTEND=OFF \
    -DENABLE_OV_PADDLE_FRONTEND=OFF \
    -DENABLE_OV_TF_FRONTEND=OFF \
    -DENABLE_OV_IR_FRONTEND=ON \
    -DENABLE_GAPI_PREPROCESSING=OFF \
    -DENABLE_OPENCV=OFF \
    -DENABLE_PYTHON=OFF \
    -DENABLE_SAMPLES=OFF \
    -DENABLE_COMPILE_TOOL=OFF \
    -DENABLE_TESTS=OFF \
    -DENABLE_CPPLINT=OFF \
    -DENABLE_NCC_STYLE=OFF \
    -DENABLE_SYSTEM_PUGIXML=ON \
    -DTHREADING=SEQ \
    -DTREAT_WARNING_AS_ERROR=OFF \
    -DCMAKE_POLICY_VERSION_MINIMUM=3.5 \
    -DVPU_FIRMWARE_USB-MA2X8X_FILE=${OPENVINO_NO_FIRMWARE} \
    -DVPU_FIRMWARE_PCIE-MA2X8X_FILE=${OPENVINO_NO_FIRMWARE} \
"
# Old code, new compilers: headers that used to come along by themselves.
CFLAGS:append = " -D_GNU_SOURCE -include stdint.h"
CXXFLAGS:append = " -include cstdint"

do_configure:prepend() {
    : > ${OPENVINO_NO_FIRMWARE}
}

do_install:append() {
    install -D -m 0644 ${UNPACKDIR}/97-myriad.rules ${D}${nonarch_base_libdir}/udev/rules.d/97-myriad.rules
    find ${D} -name '*.mvcmd' -delete
}

# Plugins and their list lie in the library directory without a version in the name.
FILES_SOLIBSDEV = ""
SOLIBS = ".so*"
FILES:${PN} += "${libdir}/openvino-* ${libdir}/plugins.xml ${nonarch_base_libdir}/udev/rules.d"
FILES:${PN}-dev = "${includedir} ${libdir}/cmake ${prefix}/runtime/cmake ${prefix}/runtime/include"
FILES:${PN} += "${prefix}/runtime"
# Reason: libopenvino_c.so is what the daemon opens; it has no versioned name upstream.
INSANE_SKIP:${PN} += "dev-so"
