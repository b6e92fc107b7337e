SUMMARY = "edgeaid: hot-plug by udev"
DESCRIPTION = "What edgeaid imports for hot-plug by udev: notices devices that come and go without polling."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-pyudev"
