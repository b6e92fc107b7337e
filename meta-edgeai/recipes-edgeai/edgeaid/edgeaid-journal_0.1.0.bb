SUMMARY = "edgeaid: journal fields"
DESCRIPTION = "What edgeaid imports for journal fields: structured records in the systemd journal."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-systemd"
