SUMMARY = "Google's pycoral without its native half"
DESCRIPTION = "Adapters and data set helpers are Google's, unchanged; utils.edgetpu is written anew on the C interface of \
libedgetpu by ctypes, so nothing is tied to one build of one interpreter. Not here: pycoral.learn, pycoral.pipeline."
HOMEPAGE = "https://coral.ai/docs/reference/py/"
BUGTRACKER = "https://github.com/google-coral/pycoral/issues"
SECTION = "devel/python"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "Apache-2.0 & MIT"
# Google's part, and ours (edgetpu.py).
LIC_FILES_CHKSUM = " \
    file://LICENSE;md5=d8927f3331d2b3e321b7dd1925166d25 \
    file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302 \
"

SRC_URI = " \
    git://github.com/google-coral/pycoral.git;branch=master;protocol=https;destsuffix=pycoral \
    file://edgetpu.py \
"
SRCREV = "46f06c8dd9c5231e5cb27910d4e1fcbdcf1be8f0"
S = "${UNPACKDIR}/pycoral"

# Not the project of this name on the Python index.
CVE_PRODUCT = "google:pycoral"

# Upstream tags releases by fish names ("release-grouper").
UPSTREAM_VERSION_UNKNOWN = "1"

inherit allarch edgeai_bytecode

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    site=${D}${PYTHON_SITEPACKAGES_DIR}/pycoral
    install -d $site/adapters $site/utils
    install -m 0644 ${S}/pycoral/__init__.py $site/
    install -m 0644 ${S}/pycoral/adapters/*.py $site/adapters/
    install -m 0644 ${S}/pycoral/utils/__init__.py ${S}/pycoral/utils/dataset.py $site/utils/
    install -m 0644 ${UNPACKDIR}/edgetpu.py $site/utils/
}

FILES:${PN} = "${PYTHON_SITEPACKAGES_DIR}"
RDEPENDS:${PN} = "edgeai-cpu-runtime libedgetpu python3-core python3-ctypes python3-numpy"
