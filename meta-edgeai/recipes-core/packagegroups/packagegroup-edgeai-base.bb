SUMMARY = "Daemon, models and settings of an Edge AI device"
DESCRIPTION = "The part every image has, whatever it can run: the daemon, its default models, settings and power profile."

inherit packagegroup features_check

# Of edgeaid-journal: without it the whole world could not be built where a distribution has another init.
REQUIRED_DISTRO_FEATURES = "systemd"

# First-boot settings from the card; a distribution that has its own way sets this to nothing.
EDGEAI_PROVISION ?= "edgeai-provision"

RDEPENDS:${PN} = " \
    ${EDGEAI_PROVISION} \
    edgeai-config \
    edgeai-models \
    edgeai-power \
    edgeaid \
    edgeaid-hotplug \
    edgeaid-journal \
    os-release \
"
