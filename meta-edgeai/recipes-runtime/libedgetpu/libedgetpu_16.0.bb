SUMMARY = "Driver library of the Coral Edge TPU, at both clocks"
DESCRIPTION = "Built against the headers of TensorFlow 2.21: Google's own binary is built for 2.5 and crashes in every \
current interpreter. Standard and maximum clock are installed side by side; libedgetpu.so.1 is the one chosen."
HOMEPAGE = "https://coral.ai/software/"
BUGTRACKER = "https://github.com/google-coral/libedgetpu/issues"
SECTION = "libs"
# How far it got here; README.md has the table.
EDGEAI_STATUS = "built"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=86d3f3a95c324c9479bd8986968f4327"

require recipes-runtime/tflite/tensorflow-lite-source.inc
SRC_URI = " \
    git://github.com/google-coral/libedgetpu.git;branch=master;protocol=https;name=libedgetpu;destsuffix=libedgetpu \
    ${TENSORFLOW_SRC_URI} \
    file://0001-makefile_build-libraries-after-the-objects-that-need-.patch \
    file://0002-makefile_build-generated-headers-before-the-sources.patch \
    file://71-edgetpu.rules \
    file://abi-check.cc \
"
SRCREV_libedgetpu = "e35aed18fea2e2d25d98352e5a5bd357c170bd4d"
SRCREV_FORMAT = "libedgetpu"
DEPENDS += "abseil-cpp flatbuffers-edgeai flatbuffers-edgeai-native libusb1 xxd-native"
S = "${UNPACKDIR}/libedgetpu"

# Upstream tags releases by fish names ("release-grouper"); the driver calls itself 16.0.
UPSTREAM_CHECK_GITTAGREGEX = "release-(?P<pver>\w+)"
UPSTREAM_VERSION_UNKNOWN = "1"

inherit update-alternatives useradd

# Which clock libedgetpu.so.1 means where both are installed: std or max. Maximum needs a cool place (25 C against 35 C).
# Changed on the device by giving the other one the higher priority, which opkg-utils' update-alternatives understands:
#   update-alternatives --install /usr/lib/libedgetpu.so.1 libedgetpu.so.1 /usr/lib/edgetpu/max/libedgetpu.so.1.0 70
EDGEAI_EDGETPU_CLOCK ?= "std"

# USB devices belong to plugdev (base-passwd); nodes of the PCIe driver to apex.
USERADD_PACKAGES = "${PN}-udev"
GROUPADD_PARAM:${PN}-udev = "--system apex"

FLATBUFFERS_TARGET = "${STAGING_LIBDIR}/flatbuffers-edgeai"
EDGETPU_CXXFLAGS = " \
    ${CXXFLAGS} -fPIC -Wall -std=c++17 -include cstdint -DDARWINN_PORT_DEFAULT \
    -I${FLATBUFFERS_TARGET}/include -I${STAGING_INCDIR}/libusb-1.0 \
"
# abseil split and renamed its flag libraries over the years: whatever is in the sysroot, the linker keeps what is used. In one
# line: make takes each further line of a variable for a command. A symbol nobody has ends the build, not the program later.
EDGETPU_ABSEIL = "$(cd ${STAGING_LIBDIR} && ls libabsl_*.so | sed 's/^lib\(.*\)\.so$/-l\1/' | tr '\n' ' ')"
EDGETPU_LDFLAGS = " \
    ${LDFLAGS} -shared -Wl,--soname,libedgetpu.so.1 -Wl,--version-script=${S}/tflite/public/libedgetpu.lds -Wl,-z,defs \
"
EDGETPU_LDLIBS = " \
    ${WORKDIR}/tflite-parts/*.o \
    ${FLATBUFFERS_TARGET}/lib/libflatbuffers.a \
    -Wl,--as-needed -Wl,--start-group ${EDGETPU_ABSEIL} -Wl,--end-group \
    -lusb-1.0 \
"
# What the Makefile has fixed is given on the command line, which wins. C sources: TensorFlow's common.c became C++ (compiled
# below).
# From the top and with relative names, or the names of generated headers hold the build computer's directories.
EXTRA_OEMAKE = " \
    -f makefile_build/Makefile \
    BUILDROOT=. \
    TFROOT=${TENSORFLOW_DIR} \
    FLATC=${STAGING_LIBDIR_NATIVE}/flatbuffers-edgeai/bin/flatc \
    LIBEDGETPU_CSRCS= \
"

# TensorFlow's C core that a delegate contains, by its names of 2.21.
TFLITE_PARTS = " \
    tensorflow/lite/array.cc \
    tensorflow/lite/core/c/common.cc \
"

do_configure[noexec] = "1"

do_compile() {
    # The delegate hands TfLiteRegistration over by value; the interpreters of today read 88 bytes of it on a 64-bit machine.
    # A wrong header set would crash on the device: let it fail here instead.
    ${CXX} ${EDGETPU_CXXFLAGS} -I${TENSORFLOW_DIR} -fsyntax-only ${UNPACKDIR}/abi-check.cc

    mkdir -p ${WORKDIR}/tflite-parts
    for source in ${TFLITE_PARTS}; do
        ${CXX} ${EDGETPU_CXXFLAGS} -I${TENSORFLOW_DIR} -c ${TENSORFLOW_DIR}/$source \
            -o ${WORKDIR}/tflite-parts/$(echo $source | tr / _).o
    done

    for target in libedgetpu-throttled libedgetpu; do
        oe_runmake CC="${CC}" CXX="${CXX}" LIBEDGETPU_CXXFLAGS="${EDGETPU_CXXFLAGS}" \
            LIBEDGETPU_LDFLAGS="${EDGETPU_LDFLAGS}" LIBEDGETPU_LDLIBS="${EDGETPU_LDLIBS}" $target
    done
}

do_install() {
    install -D -m 0755 ${S}/out/throttled/k8/libedgetpu.so.1.0 ${D}${libdir}/edgetpu/std/libedgetpu.so.1.0
    install -D -m 0755 ${S}/out/direct/k8/libedgetpu.so.1.0 ${D}${libdir}/edgetpu/max/libedgetpu.so.1.0
    ln -s edgetpu/${EDGEAI_EDGETPU_CLOCK}/libedgetpu.so.1.0 ${D}${libdir}/libedgetpu.so
    install -D -m 0644 ${S}/tflite/public/edgetpu_c.h ${D}${includedir}/edgetpu_c.h
    install -m 0644 ${S}/tflite/public/edgetpu.h ${D}${includedir}/edgetpu.h
    install -D -m 0644 ${UNPACKDIR}/71-edgetpu.rules ${D}${nonarch_base_libdir}/udev/rules.d/71-edgetpu.rules
}

# Not ${PN}-std and ${PN}-max: recipes of those names exist in another layer.
PACKAGES =+ "${PN}-clock-max ${PN}-clock-std ${PN}-udev"
SUMMARY:${PN}-clock-std = "${SUMMARY} - standard clock"
SUMMARY:${PN}-clock-max = "${SUMMARY} - maximum clock"
SUMMARY:${PN}-udev = "${SUMMARY} - device permissions"
FILES:${PN}-clock-std = "${libdir}/edgetpu/std"
FILES:${PN}-clock-max = "${libdir}/edgetpu/max"
FILES:${PN}-udev = "${nonarch_base_libdir}/udev/rules.d"
RDEPENDS:${PN}-clock-std = "${PN}-udev"
RDEPENDS:${PN}-clock-max = "${PN}-udev"
# "libedgetpu" is the chosen clock.
ALLOW_EMPTY:${PN} = "1"
RDEPENDS:${PN} = "${PN}-clock-${EDGEAI_EDGETPU_CLOCK}"

ALTERNATIVE:${PN}-clock-std = "libedgetpu.so.1"
ALTERNATIVE:${PN}-clock-max = "libedgetpu.so.1"
ALTERNATIVE_LINK_NAME[libedgetpu.so.1] = "${libdir}/libedgetpu.so.1"
ALTERNATIVE_TARGET_libedgetpu-clock-std[libedgetpu.so.1] = "${libdir}/edgetpu/std/libedgetpu.so.1.0"
ALTERNATIVE_TARGET_libedgetpu-clock-max[libedgetpu.so.1] = "${libdir}/edgetpu/max/libedgetpu.so.1.0"
ALTERNATIVE_PRIORITY_libedgetpu-clock-std[libedgetpu.so.1] = "${@'60' if d.getVar('EDGEAI_EDGETPU_CLOCK') == 'std' else '40'}"
ALTERNATIVE_PRIORITY_libedgetpu-clock-max[libedgetpu.so.1] = "${@'60' if d.getVar('EDGEAI_EDGETPU_CLOCK') == 'max' else '40'}"

python () {
    clock = d.getVar("EDGEAI_EDGETPU_CLOCK")
    if clock not in ("std", "max"):
        bb.fatal("EDGEAI_EDGETPU_CLOCK is '%s'; it can be std or max" % clock)
}
