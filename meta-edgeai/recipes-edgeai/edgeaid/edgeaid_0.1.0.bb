SUMMARY = "Daemon that runs models on the CPU and on USB accelerators"
DESCRIPTION = "Loads models, keeps accelerators alive and answers inference requests \
over a local socket; with the command line tool edgeai and its Python client."
SECTION = "devel/python"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "ran"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

EDGEAID_TREE_PARTS = "pyproject.toml README.md src systemd boards tests benchmarks training docs examples"
require edgeai-source.inc

SRC_URI += "file://run-ptest"

inherit python_setuptools_build_meta systemd useradd ptest

SYSTEMD_SERVICE:${PN} = "edgeaid.service edgeaid.socket edgeaid-fast.socket edgeaid-usb.socket"

# One account runs the daemon. Its groups open devices (plugdev: USB, dialout: serial, video: cameras, apex: PCIe);
# the edgeai-* groups are roles: who is in one may observe, infer or control.
EDGEAI_GROUPS = "edgeai edgeai-observe edgeai-infer edgeai-control apex"
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "${@'; '.join('--system ' + g for g in d.getVar('EDGEAI_GROUPS').split())}"
USERADD_PARAM:${PN} = "--system --home-dir ${localstatedir}/lib/edgeai --no-create-home --shell /sbin/nologin \
    --gid edgeai --groups plugdev,dialout,video,apex edgeai"

do_install:append() {
    install -d ${D}${systemd_system_unitdir}
    # The units of features are in the features' own packages.
    for unit in edgeaid.service edgeaid-usb@.service edgeaid.socket edgeaid-fast.socket edgeaid-usb.socket; do
        install -m 0644 ${S}/systemd/$unit ${D}${systemd_system_unitdir}/
    done
    # For streams from the network; in force on images with the feature camera.
    install -D -m 0644 ${S}/systemd/edgeaid-cameras.conf ${D}${datadir}/edgeai/edgeaid-cameras.conf
    install -D -m 0644 ${S}/systemd/edgeai.sysusers ${D}${nonarch_libdir}/sysusers.d/edgeai.conf
    install -D -m 0644 ${S}/systemd/edgeai.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/edgeai.conf
    install -D -m 0644 ${S}/systemd/70-edgeai.rules ${D}${nonarch_base_libdir}/udev/rules.d/70-edgeai.rules
    install -D -m 0644 ${S}/systemd/edgeaid.toml ${D}${sysconfdir}/edgeai/edgeaid.toml
    # what a K210 board is given over its serial line
    install -D -m 0644 ${S}/boards/maixpy/agent.py ${D}${datadir}/edgeai/maixpy/agent.py
    # C programs ask over the fast socket with this header alone.
    install -D -m 0644 ${S}/examples/edgeai_fast.h ${D}${includedir}/edgeai_fast.h
    install -d ${D}${datadir}/edgeai/examples
    cp -r ${S}/examples/* ${D}${datadir}/edgeai/examples/
    rm ${D}${datadir}/edgeai/examples/edgeai_fast.h
    find ${D}${datadir}/edgeai/examples -name __pycache__ -prune -exec rm -rf {} +
    find ${D}${datadir}/edgeai/examples -type f -exec chmod 0644 {} +
    # edgeai-models carries the models; twice on the card would be a waste.
    rm -rf ${D}${PYTHON_SITEPACKAGES_DIR}/edgeaid/models/defaults
}

do_install_ptest() {
    # The tests read the rest of daemon/ as it lies in a checkout: units, board files, benchmarks, pages whose examples they run.
    for part in pyproject.toml systemd boards tests benchmarks training docs examples; do
        cp -r ${S}/$part ${D}${PTEST_PATH}/
    done
    # They find the default models where a Python installation has them.
    ln -s ${datadir}/edgeai/models ${D}${PYTHON_SITEPACKAGES_DIR}/edgeaid/models/defaults
    find ${D}${PTEST_PATH} -name __pycache__ -prune -exec rm -rf {} +
}

# What prepares models on a desk: readers, checks, converters and their verbs. The daemon does without (a test holds it to that).
PACKAGE_BEFORE_PN = "${PN}-toolkit ${PN}-examples"
SUMMARY:${PN}-toolkit = "Verbs of edgeai that inspect, check, convert, compile and bundle models"
FILES:${PN}-toolkit = "\
    ${PYTHON_SITEPACKAGES_DIR}/edgeaid/toolkit \
    ${PYTHON_SITEPACKAGES_DIR}/edgeaid/cli/model.py \
    ${PYTHON_SITEPACKAGES_DIR}/edgeaid/cli/model_*.py \
    ${PYTHON_SITEPACKAGES_DIR}/edgeaid/cli/__pycache__/model.*.pyc \
    ${PYTHON_SITEPACKAGES_DIR}/edgeaid/cli/__pycache__/model_*.pyc \
    ${PYTHON_SITEPACKAGES_DIR}/edgeaid/formats/exchange \
"
RDEPENDS:${PN}-toolkit = "${PN}"

SUMMARY:${PN}-examples = "Programs to copy: Python, C, Node.js, curl, a unit for systemd"
FILES:${PN}-examples = "${datadir}/edgeai/examples"
RDEPENDS:${PN}-examples = "${PN}"
# One header, which no program on a device needs: an SDK has it without the daemon.
RDEPENDS:${PN}-dev = ""

FILES:${PN}-ptest += "${PYTHON_SITEPACKAGES_DIR}/edgeaid/models/defaults"
FILES:${PN} += "\
    ${systemd_system_unitdir} \
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${nonarch_base_libdir}/udev/rules.d \
    ${datadir}/edgeai/edgeaid-cameras.conf \
    ${datadir}/edgeai/maixpy \
"
CONFFILES:${PN} = "${sysconfdir}/edgeai/edgeaid.toml"

RDEPENDS:${PN} = " \
    python3-aiohttp \
    python3-asyncio \
    python3-click \
    python3-compression \
    python3-core \
    python3-crypt \
    python3-ctypes \
    python3-datetime \
    python3-email \
    python3-fcntl \
    python3-io \
    python3-json \
    python3-logging \
    python3-math \
    python3-mmap \
    python3-multiprocessing \
    python3-netclient \
    python3-numbers \
    python3-numpy \
    python3-pickle \
    python3-pillow \
    python3-resource \
    python3-rich \
    python3-shell \
    python3-statistics \
    python3-terminal \
    python3-threading \
    python3-tomllib \
    python3-unixadmin \
"
RDEPENDS:${PN}-ptest += "${PN}-toolkit edgeai-models python3-flatbuffers python3-hypothesis python3-pytest python3-pytest-asyncio python3-unittest-automake-output"
