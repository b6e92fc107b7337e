SUMMARY = "edgeaid: Frigate detector"
DESCRIPTION = "What edgeaid imports for Frigate detector: the detector protocol of Frigate over ZeroMQ."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-pyzmq"
