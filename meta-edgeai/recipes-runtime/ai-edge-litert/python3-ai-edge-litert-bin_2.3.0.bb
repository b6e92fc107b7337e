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

require ai-edge-litert-wheel.inc
S = "${UNPACKDIR}/wheel"

# Not TensorFlow's name: its version numbers are others, and old ones of TensorFlow would fit.
CVE_PRODUCT = "google:litert"

inherit edgeai_bytecode

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
    find ${D}${PYTHON_SITEPACKAGES_DIR} -type d -exec chmod 0755 {} +
    find ${D}${PYTHON_SITEPACKAGES_DIR} -type f -exec chmod 0644 {} +
}

FILES:${PN} = "${PYTHON_SITEPACKAGES_DIR}"

# The wheel's metadata names more (protobuf, ml_dtypes, tqdm ...); its interpreter imports numpy only.
RDEPENDS:${PN} = "python3-core python3-ctypes python3-numpy"
RPROVIDES:${PN} = "edgeai-cpu-runtime python3-ai-edge-litert"

# Reason: the wheel comes stripped, there is nothing to split off.
INSANE_SKIP:${PN} += "already-stripped"
