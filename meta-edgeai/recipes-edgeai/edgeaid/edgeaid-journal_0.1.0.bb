SUMMARY = "edgeaid: journal fields"
DESCRIPTION = "What edgeaid imports for journal fields: structured records in the systemd journal."
require edgeaid-extra.inc

inherit features_check
REQUIRED_DISTRO_FEATURES = "systemd"

RDEPENDS:${PN} += "python3-systemd"
