SUMMARY = "What a device with a read-only root keeps: identity, settings, models"
DESCRIPTION = "The first program of such a device: it mounts the partition edgeai-data at /data before systemd starts, because \
machine-id and host name are read before any unit. The images put it in place of /sbin/init (edgeai-image.inc)."
SECTION = "base"
HOMEPAGE = "${EDGEAI_PROJECT_URL}"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://device"
S = "${UNPACKDIR}/device"

inherit allarch systemd

SYSTEMD_SERVICE:${PN} = "edgeai-data-grow.service var-lib-edgeai.mount var-lib-systemd.mount"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/preinit ${D}${nonarch_libdir}/edgeai/preinit
    sed -i -e 's,@LIBDIR@,${nonarch_libdir},g' ${D}${nonarch_libdir}/edgeai/preinit
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/*.mount ${S}/*.service ${D}${systemd_system_unitdir}/
}

FILES:${PN} = "${nonarch_libdir}/edgeai ${systemd_system_unitdir}"

# A partition that does not mount is repaired first.
RDEPENDS:${PN} = "e2fsprogs-e2fsck volatile-binds"
