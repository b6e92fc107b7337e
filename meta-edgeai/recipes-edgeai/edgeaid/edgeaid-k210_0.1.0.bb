SUMMARY = "edgeaid: Kendryte K210 boards"
DESCRIPTION = "What edgeaid imports for Kendryte K210 boards: inference on K210 boards behind a serial port."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-pyserial"
