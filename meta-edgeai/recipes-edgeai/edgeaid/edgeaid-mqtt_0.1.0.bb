SUMMARY = "edgeaid: MQTT with Home Assistant discovery"
DESCRIPTION = "What edgeai-mqtt imports, and its unit. It starts as soon as /etc/edgeai/mqtt.env names a broker."
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "systemd/edgeai-mqtt.service"
require edgeai-source.inc

inherit allarch systemd

SYSTEMD_SERVICE:${PN} = "edgeai-mqtt.service"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/systemd/edgeai-mqtt.service ${D}${systemd_system_unitdir}/edgeai-mqtt.service
    # Enabled in the image, because on a read-only root nobody can enable it later: without settings it is not started.
    install -d ${D}${systemd_system_unitdir}/edgeai-mqtt.service.d
    printf '[Unit]\nConditionPathExists=%s/edgeai/mqtt.env\n' "${sysconfdir}" \
        > ${D}${systemd_system_unitdir}/edgeai-mqtt.service.d/10-configured.conf
}

FILES:${PN} = "${systemd_system_unitdir}"

RDEPENDS:${PN} = "edgeaid python3-paho-mqtt"
