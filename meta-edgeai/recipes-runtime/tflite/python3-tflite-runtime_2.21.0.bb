SUMMARY = "TensorFlow Lite interpreter for Python, from source"
DESCRIPTION = "The tflite_runtime package: TensorFlow Lite with XNNPACK, built by CMake. Every source is in SRC_URI by \
commit; no task but do_fetch uses the network."
HOMEPAGE = "https://www.tensorflow.org/lite"
BUGTRACKER = "https://github.com/tensorflow/tensorflow/issues"
SECTION = "devel/python"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "resolved"
LICENSE = "Apache-2.0 & BSD-2-Clause & BSD-3-Clause & MIT & MPL-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=4158a261ca7f2525513e31ba9c50ae98"

require tensorflow-lite-source.inc
SRC_URI = "${TENSORFLOW_SRC_URI}"
require tensorflow-lite-pins-2.21.0.inc

SRCREV_FORMAT = "tensorflow"
S = "${TENSORFLOW_DIR}"

UPSTREAM_CHECK_GITTAGREGEX = "v(?P<pver>\d+(\.\d+)+)$"

DEPENDS += "abseil-cpp flatbuffers-tflite-native protobuf protobuf-native python3 python3-numpy python3-pybind11"

inherit cmake python3native python3-dir

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

OECMAKE_SOURCEPATH = "${S}/tensorflow/lite"
OECMAKE_TARGET_COMPILE = "_pywrap_tensorflow_interpreter_wrapper"

# numpy 1.x keeps its headers in numpy/core, numpy 2.x in numpy/_core: take the one that is there.
TFLITE_NUMPY_INCLUDES = " \
    -I${STAGING_DIR_TARGET}${PYTHON_SITEPACKAGES_DIR}/numpy/_core/include \
    -I${STAGING_DIR_TARGET}${PYTHON_SITEPACKAGES_DIR}/numpy/core/include \
"
TFLITE_VERSION_FLAGS = "${@' '.join('-DTF_%s_VERSION=%s' % p for p in zip(('MAJOR', 'MINOR', 'PATCH'), d.getVar('PV').split('.')))}"
TFLITE_PYTHON_FLAGS = " \
    -I${STAGING_INCDIR}/${PYTHON_DIR}${PYTHON_ABI} \
    -I${STAGING_DIR_TARGET}${PYTHON_SITEPACKAGES_DIR}/pybind11/include \
    ${TFLITE_NUMPY_INCLUDES} \
    ${TFLITE_VERSION_FLAGS} \
"
OECMAKE_CXX_FLAGS:append = " ${TFLITE_PYTHON_FLAGS}"
OECMAKE_C_FLAGS:append = " ${TFLITE_VERSION_FLAGS}"

# CMake's FetchContent takes a folder instead of a download; XNNPACK asks for its own dependencies by <NAME>_SOURCE_DIR.
EXTRA_OECMAKE = " \
    -DFETCHCONTENT_FULLY_DISCONNECTED=ON \
    ${@' '.join('-DFETCHCONTENT_SOURCE_DIR_%s=%s/deps/%s' % (p.upper(), d.getVar('UNPACKDIR'), p) for p in d.getVar('TFLITE_PINS').split())} \
    -DCPUINFO_SOURCE_DIR=${UNPACKDIR}/deps/cpuinfo \
    -DPTHREADPOOL_SOURCE_DIR=${UNPACKDIR}/deps/pthreadpool \
    -DFP16_SOURCE_DIR=${UNPACKDIR}/deps/fp16_headers \
    -DFXDIV_SOURCE_DIR=${UNPACKDIR}/deps/fxdiv \
    -DKLEIDIAI_SOURCE_DIR=${UNPACKDIR}/deps/kleidiai \
    -DCMAKE_FIND_PACKAGE_PREFER_CONFIG=ON \
    -DCMAKE_POLICY_VERSION_MINIMUM=3.5 \
    -DTENSORFLOW_SOURCE_DIR=${S} \
    -DTFLITE_HOST_TOOLS_DIR=${STAGING_LIBDIR_NATIVE}/flatbuffers-tflite/bin \
    -DTFLITE_ENABLE_XNNPACK=ON \
    -DTFLITE_ENABLE_GPU=OFF \
    -DTFLITE_ENABLE_EXTERNAL_DELEGATE=ON \
    -DTFLITE_ENABLE_LABEL_IMAGE=OFF \
    -DXNNPACK_ENABLE_ARM_BF16=OFF \
    -DXNNPACK_ENABLE_KLEIDIAI=OFF \
"

do_install() {
    site=${D}${PYTHON_SITEPACKAGES_DIR}
    install -d $site/tflite_runtime $site/tflite_runtime-${PV}.dist-info
    install -m 0755 ${B}/_pywrap_tensorflow_interpreter_wrapper.so $site/tflite_runtime/
    install -m 0644 ${S}/tensorflow/lite/python/interpreter.py \
        ${S}/tensorflow/lite/python/metrics/metrics_interface.py \
        ${S}/tensorflow/lite/python/metrics/metrics_portable.py \
        $site/tflite_runtime/
    printf "__version__ = '%s'\n" "${PV}" > $site/tflite_runtime/__init__.py
    # importlib.metadata finds a version where pip would have put one.
    printf 'Metadata-Version: 2.1\nName: tflite-runtime\nVersion: %s\n' "${PV}" > $site/tflite_runtime-${PV}.dist-info/METADATA
}

FILES:${PN} = "${PYTHON_SITEPACKAGES_DIR}"
RDEPENDS:${PN} = "python3-core python3-ctypes python3-numpy"
RPROVIDES:${PN} = "edgeai-cpu-runtime"
