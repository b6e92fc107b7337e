SUMMARY = "LiteRT interpreter for Python, Google's wheel"
DESCRIPTION = "The ai_edge_litert package as published on PyPI: the TensorFlow Lite interpreter \
with XNNPACK. Prebuilt; python3-tflite-runtime is the same interpreter from source."
HOMEPAGE = "https://ai.google.dev/edge/litert"
BUGTRACKER = "https://github.com/google-ai-edge/LiteRT/issues"
SECTION = "devel/python"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "ran"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${UNPACKDIR}/wheel/ai_edge_litert-${PV}.dist-info/licenses/LICENSE;md5=86d3f3a95c324c9479bd8986968f4327"

# One wheel per Python version. PyPI's redirect "packages/<tag>/<letter>/<name>/<file>" leads to the hashed path.
LITERT_TAG = "cp${@d.getVar('PYTHON_BASEVERSION').replace('.', '')}"
LITERT_WHEEL = "ai_edge_litert-${PV}-${LITERT_TAG}-${LITERT_TAG}-manylinux_2_27_aarch64.whl"
LITERT_SHA256[cp311] = "853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae"
LITERT_SHA256[cp312] = "9891611b23a87cc2ace60e4b5ee9a2ee6f0fb7f395f009470961ae6e6310e1b8"
LITERT_SHA256[cp313] = "2ab71e4f5dfa65b3882634b42755f455f3e7415630d720200bd792733e15e257"
LITERT_SHA256[cp314] = "899b41423b30f3cef1ce8a361443092fdeefc4d536132511634fa21548347b0a"

# A wheel is a zip file: fetched under a name that says so, and unpacked into a folder of its own.
SRC_URI = "https://files.pythonhosted.org/packages/${LITERT_TAG}/a/ai-edge-litert/${LITERT_WHEEL};downloadfilename=${LITERT_WHEEL}.zip;subdir=wheel;name=wheel"
SRC_URI[wheel.sha256sum] = "${@d.getVarFlag('LITERT_SHA256', d.getVar('LITERT_TAG')) or ''}"
S = "${UNPACKDIR}/wheel"

UPSTREAM_CHECK_URI = "https://pypi.org/project/ai-edge-litert/"
UPSTREAM_CHECK_REGEX = "/ai-edge-litert/(?P<pver>\d+(\.\d+)+)/"

inherit python3-dir python3native

COMPATIBLE_HOST = "aarch64.*-linux"

python () {
    tag = d.getVar("LITERT_TAG")
    if not d.getVarFlag("LITERT_SHA256", tag):
        raise bb.parse.SkipRecipe("ai-edge-litert %s has no checksum here for %s" % (d.getVar("PV"), tag))
}

# Already compiled.
do_configure[noexec] = "1"
do_compile[noexec] = "1"

# Loaded only by parts nobody here imports: GPU and NPU accelerators, the model converter's analysis tools.
LITERT_UNUSED = " \
    libLiteRtWebGpuAccelerator.so \
    libLiteRt.so \
"

do_install() {
    install -d ${D}${PYTHON_SITEPACKAGES_DIR}
    cp -R --no-preserve=ownership ${S}/ai_edge_litert ${S}/ai_edge_litert-${PV}.dist-info ${D}${PYTHON_SITEPACKAGES_DIR}/
    for unused in ${LITERT_UNUSED}; do
        rm -f ${D}${PYTHON_SITEPACKAGES_DIR}/ai_edge_litert/$unused
    done
    rm -f ${D}${PYTHON_SITEPACKAGES_DIR}/ai_edge_litert-${PV}.dist-info/RECORD
    # Compiled as the modules of every other Python package are: on a read-only root nothing could be written at the first start.
    # The times of sources change on their way into an image, so nothing depends on them.
    nativepython3 -m compileall -q -s ${D} -p / --invalidation-mode unchecked-hash ${D}${PYTHON_SITEPACKAGES_DIR}/ai_edge_litert
    find ${D}${PYTHON_SITEPACKAGES_DIR} -type d -exec chmod 0755 {} +
    find ${D}${PYTHON_SITEPACKAGES_DIR} -type f -exec chmod 0644 {} +
}

FILES:${PN} = "${PYTHON_SITEPACKAGES_DIR}"

# The wheel's metadata names more (protobuf, ml_dtypes, tqdm ...); its interpreter imports numpy only.
RDEPENDS:${PN} = "python3-core python3-ctypes python3-numpy"
RPROVIDES:${PN} = "edgeai-cpu-runtime python3-ai-edge-litert"

INHIBIT_PACKAGE_STRIP = "1"
# Reason: the wheel comes stripped, there is nothing to split off.
INSANE_SKIP:${PN} += "already-stripped"
