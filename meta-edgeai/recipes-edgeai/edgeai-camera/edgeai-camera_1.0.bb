SUMMARY = "Permissions for cameras: device groups and the daemon's unit"
DESCRIPTION = "On images with the feature camera. The daemon itself opens no camera: it starts one program for each, in its own unit."
SECTION = "base"
HOMEPAGE = "${EDGEAI_PROJECT_URL}"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://device"
S = "${UNPACKDIR}/device"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/50-camera.conf ${D}${systemd_system_unitdir}/edgeaid.service.d/50-camera.conf
    # Network cameras: the daemon's own drop-in, which an image without this package has for copying.
    ln -s ${datadir}/edgeai/edgeaid-cameras.conf ${D}${systemd_system_unitdir}/edgeaid.service.d/51-edgeaid-cameras.conf
    install -D -m 0644 ${S}/71-edgeai-camera.rules ${D}${nonarch_base_libdir}/udev/rules.d/71-edgeai-camera.rules
}

FILES:${PN} = "${systemd_system_unitdir} ${nonarch_base_libdir}/udev/rules.d"
RDEPENDS:${PN} = "edgeaid"
