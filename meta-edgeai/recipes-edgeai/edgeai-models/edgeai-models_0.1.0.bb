SUMMARY = "Models that an Edge AI device can run on its first day"
DESCRIPTION = "Small models with labels, pre- and post-processing and golden answers, \
in the directory form that edgeaid loads; they run on the CPU without any accelerator."
SECTION = "misc"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "ran"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "src/edgeaid/models"
require ../edgeaid/edgeai-source.inc

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${datadir}/edgeai/models
    if [ ! -d ${S}/src/edgeaid/models/defaults ]; then
        bbfatal "no default models in ${S}/src/edgeaid/models/defaults: is the checkout complete?"
    fi
    cp -R --no-preserve=ownership ${S}/src/edgeaid/models/defaults/. ${D}${datadir}/edgeai/models/
    find ${D}${datadir}/edgeai/models -name '*.py' -delete
    find ${D}${datadir}/edgeai/models -name __pycache__ -prune -exec rm -rf {} +
}

FILES:${PN} = "${datadir}/edgeai/models"
