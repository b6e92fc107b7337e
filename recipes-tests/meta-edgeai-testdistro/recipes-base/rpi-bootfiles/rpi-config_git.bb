SUMMARY = "TEST ONLY: a config.txt where the real recipe fetches a commented one"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
INHIBIT_DEFAULT_DEPS = "1"
inherit deploy nopackages replaced-names
do_deploy() {
    install -d ${DEPLOYDIR}/${BOOTFILES_DIR_NAME}
    CONFIG=${DEPLOYDIR}/${BOOTFILES_DIR_NAME}/config.txt
    printf 'arm_64bit=1\nkernel=%s\n' "${SDIMG_KERNELIMAGE}" > $CONFIG
    if [ "${ENABLE_UART}" = "1" ]; then echo enable_uart=1 >> $CONFIG; fi
    printf '%b' "${RPI_EXTRA_CONFIG}" >> $CONFIG
}
addtask deploy before do_build after do_install
do_deploy[dirs] += "${DEPLOYDIR}/${BOOTFILES_DIR_NAME}"
PACKAGE_ARCH = "${MACHINE_ARCH}"
