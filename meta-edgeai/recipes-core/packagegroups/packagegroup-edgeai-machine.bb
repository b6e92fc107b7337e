SUMMARY = "What a board needs beyond starting: kernel modules, firmware of its radio"
DESCRIPTION = "What the machine's own layer names for it. oe-core's packagegroup-base has it too, with Bluetooth, sound and network \
services beside it, which an image for a device does without."

# Kernel modules belong to one machine.
PACKAGE_ARCH = "${MACHINE_ARCH}"
inherit packagegroup

RDEPENDS:${PN} = "${MACHINE_EXTRA_RDEPENDS}"
RRECOMMENDS:${PN} = "${MACHINE_EXTRA_RRECOMMENDS}"
