SUMMARY = "Frigate detector interface of the daemon"
DESCRIPTION = "Answers the detector protocol of Frigate."

inherit packagegroup

RDEPENDS:${PN} = "edgeaid-frigate"
