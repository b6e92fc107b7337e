SUMMARY = "Frequency governor of the chosen power profile"
DESCRIPTION = "Clocks are set in config.txt (see conf/include/edgeai-power.inc); this package sets \
the governor that goes with them and says on the device which profile it was built with."
HOMEPAGE = "${EDGEAI_PROJECT_URL}"
SECTION = "base"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

require conf/include/edgeai-power.inc

# The profile means other clocks on another board.
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

python () {
    # Reading it checks it: a wrong name must end the parse, not a build an hour later.
    d.setVar("EDGEAI_POWER_GOVERNOR", edgeai_power(d, "_GOVERNOR"))
    d.setVar("EDGEAI_POWER_LINES", edgeai_power(d, ""))
}

do_install() {
    install -d ${D}${nonarch_libdir}/tmpfiles.d ${D}${sysconfdir}/edgeai
    # "w": written at every boot, silent on boards without frequency scaling (QEMU).
    echo "w- /sys/devices/system/cpu/cpufreq/policy*/scaling_governor - - - - ${EDGEAI_POWER_GOVERNOR}" \
        > ${D}${nonarch_libdir}/tmpfiles.d/edgeai-power.conf
    {
        echo "profile = \"${EDGEAI_POWER_PROFILE}\""
        echo "governor = \"${EDGEAI_POWER_GOVERNOR}\""
        echo "config_txt = \"${EDGEAI_POWER_LINES}\""
    } > ${D}${sysconfdir}/edgeai/power.toml
}

FILES:${PN} = "${nonarch_libdir}/tmpfiles.d ${sysconfdir}/edgeai/power.toml"
