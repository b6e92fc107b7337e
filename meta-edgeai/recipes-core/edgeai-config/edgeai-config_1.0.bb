SUMMARY = "Settings of an Edge AI device: SSH, journal, watchdog, network"
DESCRIPTION = "Drop-in files only: SSH by key, a bounded journal, the hardware watchdog, \
DHCP on wire and Wi-Fi, time from the network."
HOMEPAGE = "${EDGEAI_PROJECT_URL}"
SECTION = "base"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://device"
S = "${UNPACKDIR}/device"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

# How much of the card and of the memory the journal may take.
EDGEAI_JOURNAL_MAX ?= "64M"
EDGEAI_JOURNAL_RUNTIME_MAX ?= "16M"
# The device resets itself when systemd has not run for this long.
EDGEAI_WATCHDOG_SEC ?= "14s"

do_install() {
    install -D -m 0644 ${S}/10-edgeai-sshd.conf ${D}${sysconfdir}/ssh/sshd_config.d/10-edgeai.conf
    install -D -m 0644 ${S}/10-edgeai-journal.conf ${D}${nonarch_libdir}/systemd/journald.conf.d/10-edgeai.conf
    install -D -m 0644 ${S}/10-edgeai-watchdog.conf ${D}${nonarch_libdir}/systemd/system.conf.d/10-edgeai.conf
    install -D -m 0644 ${S}/70-edgeai-wireless.network ${D}${nonarch_libdir}/systemd/network/70-edgeai-wireless.network
    sed -i -e 's,@MAX@,${EDGEAI_JOURNAL_MAX},' -e 's,@RUNTIME_MAX@,${EDGEAI_JOURNAL_RUNTIME_MAX},' \
        ${D}${nonarch_libdir}/systemd/journald.conf.d/10-edgeai.conf
    sed -i -e 's,@SEC@,${EDGEAI_WATCHDOG_SEC},' ${D}${nonarch_libdir}/systemd/system.conf.d/10-edgeai.conf
    # On its first boot systemd would ask at the console for locale, time zone and root's password, and wait: a device without a
    # keyboard would never come up. scripts/flash sets what is to be set.
    install -d ${D}${sysconfdir}/systemd/system
    ln -sf /dev/null ${D}${sysconfdir}/systemd/system/systemd-firstboot.service
    # The root file system grows to its partition; nothing happens where it fits already.
    install -D -m 0644 ${S}/edgeai-grow.service ${D}${systemd_system_unitdir}/edgeai-grow.service
    install -d ${D}${systemd_system_unitdir}/local-fs.target.wants
    ln -s ../edgeai-grow.service ${D}${systemd_system_unitdir}/local-fs.target.wants/edgeai-grow.service
    # The supplicant starts when udev sees a radio; scripts/flash (or the user) writes its configuration.
    install -D -m 0644 ${S}/85-edgeai-wireless.rules ${D}${nonarch_base_libdir}/udev/rules.d/85-edgeai-wireless.rules
    install -D -m 0644 ${S}/10-edgeai-supplicant.conf ${D}${systemd_system_unitdir}/wpa_supplicant@.service.d/10-edgeai.conf
}

FILES:${PN} = "\
    ${sysconfdir} \
    ${nonarch_base_libdir}/udev/rules.d \
    ${nonarch_libdir}/systemd \
    ${systemd_system_unitdir} \
"

RDEPENDS:${PN} = "wpa-supplicant"
# Without the database of regulations the kernel allows only the channels that every country does.
RRECOMMENDS:${PN} = "wireless-regdb-static"
