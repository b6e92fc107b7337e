SUMMARY = "Firmware of the Intel Neural Compute Stick 2"
DESCRIPTION = "The file OpenVINO 2022.3.2 downloads while it is compiled. Not redistributable: never in an image unless the \
user accepts Intel's licence with LICENSE_FLAGS_ACCEPTED += \"commercial_intel-movidius\"."
HOMEPAGE = "https://www.intel.com/content/www/us/en/developer/tools/openvino-toolkit/overview.html"
BUGTRACKER = "https://github.com/openvinotoolkit/openvino/issues"
SECTION = "kernel/firmware"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "resolved"
LICENSE = "Intel-Software-Tools"
LICENSE_FLAGS = "commercial_intel-movidius"
LIC_FILES_CHKSUM = "file://${EDGEAI_LAYERDIR}/licenses/Intel-Software-Tools;md5=c085098fc10208a5df0c294d25a9450f"

SRC_URI = "https://storage.openvinotoolkit.org/dependencies/myriad/firmware_usb-ma2x8x_20230418_40.zip;subdir=firmware;name=usb"
SRC_URI[usb.sha256sum] = "bf61de4d01767ba85408eec3123c0038c5ead4712407dea12b04d822e5780c66"
S = "${UNPACKDIR}/firmware"

# The directory cannot be listed, and no further release is to come.
UPSTREAM_VERSION_UNKNOWN = "1"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/usb-ma2x8x.mvcmd ${D}${prefix}/runtime/lib/usb-ma2x8x.mvcmd
}

FILES:${PN} = "${prefix}/runtime/lib/usb-ma2x8x.mvcmd"
