SUMMARY = "TensorFlow Lite interpreter for Python, from source"
DESCRIPTION = "The tflite_runtime package: TensorFlow Lite with XNNPACK, built by CMake. Every source is in SRC_URI by \
commit; no task but do_fetch uses the network."
HOMEPAGE = "https://www.tensorflow.org/lite"
BUGTRACKER = "https://github.com/tensorflow/tensorflow/issues"
SECTION = "devel/python"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "resolved"
LICENSE = "Apache-2.0 & BSD-2-Clause & BSD-3-Clause & MIT & MPL-2.0 & Ooura"
LIC_FILES_CHKSUM = " \
    file://LICENSE;md5=4158a261ca7f2525513e31ba9c50ae98 \
    file://${UNPACKDIR}/deps/cpuinfo/LICENSE;md5=cabca80e8e4a4bbe90e9a4b4ad53f5f4 \
    file://${UNPACKDIR}/deps/xnnpack/LICENSE;md5=afa8f8a91390ab659c837da57124977c \
    file://${UNPACKDIR}/deps/pthreadpool/LICENSE;md5=1609499688b503850848d795dce4da2d \
    file://${UNPACKDIR}/deps/fp16_headers/LICENSE;md5=998fb0b16ad8a4fb8bd41bf3faf2d21c \
    file://${UNPACKDIR}/deps/fxdiv/LICENSE;md5=0c2eed7ba400a6fea8fec2a582b177e8 \
    file://${UNPACKDIR}/deps/kleidiai/LICENSES/Apache-2.0.txt;md5=c846ebb396f8b174b10ded4771514fcc \
    file://${UNPACKDIR}/deps/kleidiai/LICENSES/BSD-3-Clause.txt;md5=71f739ef75581cae312e8c711bcdab16 \
    file://${UNPACKDIR}/deps/ml_dtypes/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    file://${UNPACKDIR}/deps/ml_dtypes/LICENSE.eigen;md5=f75d2927d3c1ed2414ef72048f5ad640 \
    file://${UNPACKDIR}/deps/fft2d/readme.txt;beginline=140;endline=146;md5=263a6162392cb4b2b3049a64794e9f3e \
    file://${UNPACKDIR}/deps/farmhash/COPYING;md5=7dfaa79e2b070897e495fec386e3acfc \
    file://${UNPACKDIR}/deps/gemmlowp/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    file://${UNPACKDIR}/deps/ruy/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    file://${UNPACKDIR}/deps/eigen/COPYING.MPL2;md5=815ca599c9df247a0c7f619bab123dad \
    file://${UNPACKDIR}/deps/flatbuffers/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
"
# The terms of OouraFFT are a paragraph of its readme and have no SPDX name.
NO_GENERIC_LICENSE[Ooura] = "../deps/fft2d/readme.txt"

require tensorflow-lite-source.inc
SRC_URI = "${TENSORFLOW_SRC_URI}"
require tensorflow-lite-pins-2.21.0.inc

SRCREV_FORMAT = "cpuinfo"
DEPENDS += "abseil-cpp flatbuffers-edgeai-native protobuf protobuf-native python3 python3-numpy python3-pybind11"
S = "${TENSORFLOW_DIR}"

# Vulnerabilities of TensorFlow Lite are listed as TensorFlow's, by the same version number.
CVE_PRODUCT = "google:tensorflow"

UPSTREAM_CHECK_URI = "https://github.com/tensorflow/tensorflow/tags"
UPSTREAM_CHECK_REGEX = "/tensorflow/releases/tag/v(?P<pver>\d+(\.\d+)+)$"

inherit cmake edgeai_bytecode

# Each compile step of XNNPACK and of the kernels takes up to 1 GiB: no more than fit into the memory, see edgeai.buildhost. A smaller
# number of the user's own stays.
python () {
    fitting = edgeai.buildhost.make_jobs(edgeai.buildhost.cpu_count())
    if (oe.utils.parallel_make(d) or fitting + 1) > fitting:
        d.setVar("PARALLEL_MAKE", "-j %d" % fitting)
}

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

# CMake's FetchContent takes a directory instead of a download; XNNPACK asks for its own dependencies by <NAME>_SOURCE_DIR.
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
    -DTFLITE_HOST_TOOLS_DIR=${STAGING_LIBDIR_NATIVE}/flatbuffers-edgeai/bin \
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
