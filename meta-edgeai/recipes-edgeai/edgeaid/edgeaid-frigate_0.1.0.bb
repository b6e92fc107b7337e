SUMMARY = "edgeaid: Frigate detector"
DESCRIPTION = "The detector protocol of Frigate over ZeroMQ: what edgeai-frigate imports, and its unit, one for each model."
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "systemd/edgeaid-frigate@.service"
require edgeai-source.inc

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    # A template: nothing to enable before somebody names a model.
    install -D -m 0644 ${S}/systemd/edgeaid-frigate@.service ${D}${systemd_system_unitdir}/edgeaid-frigate@.service
}

FILES:${PN} = "${systemd_system_unitdir}"

RDEPENDS:${PN} = "edgeaid python3-pyzmq"
