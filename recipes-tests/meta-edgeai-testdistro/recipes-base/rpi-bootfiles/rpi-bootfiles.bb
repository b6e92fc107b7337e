SUMMARY = "TEST ONLY: Raspberry Pi boot firmware of Debian's raspi-firmware"
inherit debian-repack deploy nopackages
PACKAGE_ARCH = "${MACHINE_ARCH}"
do_install[noexec] = "1"
do_deploy() {
    rm -rf ${WORKDIR}/unpacked
    dpkg-deb -x ${DEB_FILES} ${WORKDIR}/unpacked
    install -d ${DEPLOYDIR}/${BOOTFILES_DIR_NAME}
    cd ${WORKDIR}/unpacked/usr/lib/raspi-firmware
    cp *.elf *.dat *.bin ${DEPLOYDIR}/${BOOTFILES_DIR_NAME}/
}
addtask deploy after do_install before do_build
do_deploy[depends] += "dpkg-native:do_populate_sysroot rpi-config:do_deploy rpi-cmdline:do_deploy"
do_deploy[dirs] += "${DEPLOYDIR}"
