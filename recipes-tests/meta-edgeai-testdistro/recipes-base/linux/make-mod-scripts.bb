SUMMARY = "TEST ONLY: headers of Debian's arm64 kernel, for kernel modules"
inherit debian-repack linux-kernel-base nopackages
PACKAGE_ARCH = "${MACHINE_ARCH}"
do_install[noexec] = "1"
# The kernel's own build tools run on this computer: of its package linux-kbuild-6.1 (recipes-tests/host-packages-emulation.txt).
KBUILD_TOOLS = "/usr/lib/linux-kbuild-6.1"

python () {
    d.delVarFlag("do_compile", "noexec")
}

# What the real recipe and linux-raspberrypi's do_shared_workdir leave behind.
do_compile() {
    [ -d ${KBUILD_TOOLS} ] || bbfatal "${KBUILD_TOOLS} is missing: apt-get install linux-kbuild-6.1"
    rm -rf ${WORKDIR}/unpacked ${STAGING_KERNEL_DIR} ${STAGING_KERNEL_BUILDDIR}
    for deb in ${DEB_FILES}; do dpkg-deb -x $deb ${WORKDIR}/unpacked; done
    install -d $(dirname ${STAGING_KERNEL_DIR})
    mv ${WORKDIR}/unpacked/usr/src/linux-headers-*-common ${STAGING_KERNEL_DIR}
    mv ${WORKDIR}/unpacked/usr/src/linux-headers-*-arm64 ${STAGING_KERNEL_BUILDDIR}
    for directory in ${STAGING_KERNEL_DIR} ${STAGING_KERNEL_BUILDDIR}; do
        for part in scripts tools; do rm -f $directory/$part; ln -s ${KBUILD_TOOLS}/$part $directory/$part; done
    done
    echo "include ${STAGING_KERNEL_DIR}/Makefile" > ${STAGING_KERNEL_BUILDDIR}/Makefile
    sed -n 's/^override KERNELRELEASE = //p' ${STAGING_KERNEL_BUILDDIR}/.kernelvariables > ${STAGING_KERNEL_BUILDDIR}/kernel-abiversion
    : > ${STAGING_KERNEL_BUILDDIR}/kernel-localversion
}
do_compile[depends] += "dpkg-native:do_populate_sysroot"
