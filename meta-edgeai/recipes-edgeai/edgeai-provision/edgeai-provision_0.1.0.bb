SUMMARY = "First-boot settings from the boot partition"
DESCRIPTION = "Applies the edgeai.toml that scripts/flash writes: name, Wi-Fi, SSH keys, time zone and models; \
then erases its secrets. The program is part of edgeaid; this package is the unit that runs it."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "systemd/edgeai-provision.service"
require ../edgeaid/edgeai-source.inc

inherit allarch systemd

SYSTEMD_SERVICE:${PN} = "edgeai-provision.service"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/systemd/edgeai-provision.service ${D}${systemd_system_unitdir}/edgeai-provision.service
}

FILES:${PN} = "${systemd_system_unitdir}"

# tzdata: without it no time zone but UTC can be set.
RDEPENDS:${PN} = "edgeai-config edgeaid tzdata"
