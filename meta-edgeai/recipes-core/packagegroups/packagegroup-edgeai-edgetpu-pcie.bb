SUMMARY = "Runtime for Coral on PCIe or M.2"
DESCRIPTION = "The USB runtime plus the kernel modules gasket and apex."

# Kernel modules belong to one machine.
PACKAGE_ARCH = "${MACHINE_ARCH}"
inherit packagegroup

RDEPENDS:${PN} = " \
    gasket-module \
    packagegroup-edgeai-edgetpu \
"
