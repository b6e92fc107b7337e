SUMMARY = "Support for Kendryte K210 boards"
DESCRIPTION = "Serial port driver of the daemon."

inherit packagegroup

RDEPENDS:${PN} = "edgeaid-k210"
