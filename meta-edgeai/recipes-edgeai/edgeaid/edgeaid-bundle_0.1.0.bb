SUMMARY = "edgeaid: signed model bundles"
DESCRIPTION = "What edgeaid imports for signed model bundles: checks signatures of model bundles."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-cryptography"
