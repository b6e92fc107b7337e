require libmvnc.inc

EDGEAI_STATUS = "built"

MVNC_BRANCH = "master"
SRCREV = "c3714ed607d3a4c6612668428765fea82efee166"

# NCSDK 1: graphs of its own compiler only. Chosen by PREFERRED_VERSION_libmvnc = "1.12%".
DEFAULT_PREFERENCE = "-1"

MVNC_SOURCES = "usb_boot.c usb_link_vsc.c mvnc_api.c"
