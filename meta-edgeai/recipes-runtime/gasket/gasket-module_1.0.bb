SUMMARY = "Kernel modules for the Edge TPU on PCIe and M.2"
DESCRIPTION = "gasket and apex. Upstream stops at kernel 6.8; two patches carry it further. The driver knows 4 KiB pages only: \
kas/feature/edgetpu-pcie.yml sets them on a Raspberry Pi 5."
HOMEPAGE = "https://coral.ai/docs/m2/get-started/"
BUGTRACKER = "https://github.com/google/gasket-driver/issues"
SECTION = "kernel/modules"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://LICENSE;md5=b234ee4d69f5fce4486a80fdaf4a4263"

SRC_URI = " \
    git://github.com/google/gasket-driver.git;branch=main;protocol=https;destsuffix=gasket \
    file://0001-gasket_core-no_llseek-is-gone-since-6.12.patch \
    file://0002-gasket_page_table-MODULE_IMPORT_NS-takes-a-string-sin.patch \
"
SRCREV = "5815ee3908a46a415aac616ac7b9aedcb98a504c"
S = "${UNPACKDIR}/gasket"

# No tags since 2021.
UPSTREAM_CHECK_COMMITS = "1"

inherit module

COMPATIBLE_HOST = "aarch64.*-linux"

# Upstream's Makefile asks the running kernel; the build system of the image's kernel is called instead.
EXTRA_OEMAKE += "-C ${STAGING_KERNEL_DIR} M=${S}/src"
MODULES_MODULE_SYMVERS_LOCATION = "src"
MAKE_TARGETS = "modules"
MODULES_INSTALL_TARGET = "modules_install"

KERNEL_MODULE_AUTOLOAD += "gasket apex"

# A 16 KiB kernel loads the module and then refuses every buffer: say it when the module is built.
do_compile:prepend() {
    if ! grep -q '^CONFIG_ARM64_4K_PAGES=y' ${STAGING_KERNEL_BUILDDIR}/.config; then
        bbfatal "gasket needs a kernel with 4 KiB pages; kas/feature/edgetpu-pcie.yml sets KBUILD_DEFCONFIG for it"
    fi
}
