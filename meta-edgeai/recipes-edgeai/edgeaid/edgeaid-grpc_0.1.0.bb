SUMMARY = "edgeaid: gRPC interface"
DESCRIPTION = "Open Inference Protocol over gRPC: what edgeaid imports for it, and the settings of the unit that switch it on."
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "systemd/edgeaid-grpc.conf"
require edgeai-source.inc

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/systemd/edgeaid-grpc.conf ${D}${systemd_system_unitdir}/edgeaid.service.d/50-grpc.conf
}

FILES:${PN} = "${systemd_system_unitdir}"

RDEPENDS:${PN} = "edgeaid python3-hpack python3-protobuf"
