SUMMARY = "Kernel modules for the Edge TPU on PCIe and M.2"
DESCRIPTION = "gasket and apex. Upstream stops at kernel 6.8; the changes later kernels need are made by do_configure \
and guarded by kernel version. The driver knows 4 KiB pages only: kas/feature/edgetpu-pcie.yml sets them on a Raspberry Pi 5."
HOMEPAGE = "https://coral.ai/docs/m2/get-started/"
BUGTRACKER = "https://github.com/google/gasket-driver/issues"
SECTION = "kernel/modules"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "resolved"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"

SRC_URI = "git://github.com/google/gasket-driver.git;branch=main;protocol=https;destsuffix=gasket"
SRCREV = "5815ee3908a46a415aac616ac7b9aedcb98a504c"
S = "${UNPACKDIR}/gasket/src"

# No tags since 2021.
UPSTREAM_CHECK_COMMITS = "1"

inherit module

COMPATIBLE_HOST = "aarch64.*-linux"

EXTRA_OEMAKE += "-C ${STAGING_KERNEL_BUILDDIR} M=${S}"
MAKE_TARGETS = "modules"
MODULES_INSTALL_TARGET = "modules_install"

KERNEL_MODULE_AUTOLOAD += "gasket apex"

# Two lines of the driver say what newer kernels no longer know. Rewritten in place, each only where the old form is found, so
# that a later upstream with its own fix is left alone.
#   6.12  no_llseek is gone; a NULL llseek now means the same
#   6.13  MODULE_IMPORT_NS takes a string
do_configure:append() {
    sed -i -e 's/^\(\s*\)\.llseek\s*=\s*no_llseek,/#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)\n&\n#endif/' ${S}/gasket_core.c
    sed -i -e 's/^MODULE_IMPORT_NS(DMA_BUF);/#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)\n&\n#else\nMODULE_IMPORT_NS("DMA_BUF");\n#endif/' \
        ${S}/gasket_page_table.c
    for file in gasket_core.c gasket_page_table.c; do
        grep -q '<linux/version.h>' ${S}/$file || sed -i '0,/#include/s//#include <linux\/version.h>\n#include/' ${S}/$file
    done
}

# A 16 KiB kernel loads the module and then refuses every buffer: say it when the module is built.
do_compile:prepend() {
    if ! grep -q '^CONFIG_ARM64_4K_PAGES=y' ${STAGING_KERNEL_BUILDDIR}/.config; then
        bbfatal "gasket needs a kernel with 4 KiB pages; kas/feature/edgetpu-pcie.yml sets KBUILD_DEFCONFIG for it"
    fi
}

RPROVIDES:${PN} += "gasket-module kernel-module-apex kernel-module-gasket"
