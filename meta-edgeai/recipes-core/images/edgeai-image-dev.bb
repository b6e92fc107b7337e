SUMMARY = "Edge AI device with tools, benchmarks and the daemon's own tests"
DESCRIPTION = "edgeai-image plus what a developer needs on the device. SSH is still by key only."
require edgeai-image.inc

IMAGE_FEATURES += "package-management tools-debug"
IMAGE_INSTALL += "\
    packagegroup-edgeai-dev-tools \
    edgeaid-examples \
    ${@bb.utils.contains("DISTRO_FEATURES", "ptest", "edgeaid-ptest", "", d)} \
"
