SUMMARY = "A C++ library whose compile steps need much memory, built by Debian's Bazel with meta-tensorflow's class"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
INHIBIT_DEFAULT_DEPS = "1"
do_patch[depends] = ""
do_unpack[depends] = ""
do_prepare_recipe_sysroot[depends] = ""

inherit nopackages bazel native

S = "${WORKDIR}/work"
B = "${S}"

# Debian's bazel-bootstrap, and what it wants of the host.
BAZEL = "/usr/bin/bazel-4"
EDGEAI_BAZEL_MAJOR = "4"
export JAVA_HOME = "${WORKLOAD_JAVA}"
do_prepare_recipe_sysroot[postfuncs] = ""
WORKLOAD_FILES ?= "8"
WORKLOAD_FLAGS ?= ""

# Tables of six million numbers: 0.75 GiB of memory for gcc 12, and little time.
do_configure:prepend() {
    mkdir -p ${S}
    echo 'workspace(name = "workload")' > ${S}/WORKSPACE
    # The compiler as a rule of its own: cc_library wants rules that Bazel would download.
    : > ${S}/BUILD
    for number in $(seq ${WORKLOAD_FILES}); do
        {
            previous=n
            for name in A B C D E F; do
                if [ $previous = n ]; then piece="x,"; else piece="$previous(x)"; fi
                echo "#define $name(x) $piece $piece $piece $piece $piece $piece $piece $piece"
                previous=$name
            done
            echo "extern const int table_$number[];"
            echo "const int table_$number[] = {$(for i in $(seq 23); do printf 'F(%d) ' $i; done)};"
        } > ${S}/table_$number.cc
        echo "genrule(name = 'table_$number', srcs = ['table_$number.cc'], outs = ['table_$number.o']," \
            "cmd = '/usr/bin/g++ -O0 -ftrack-macro-expansion=0 -c \$< -o \$@')" >> ${S}/BUILD
    done
}

do_compile() {
    cd ${S}
    ${BAZEL} ${BAZEL_STARTUP_OPTIONS} build ${WORKLOAD_FLAGS} //:all
}
do_install() {
    :
}
deltask do_populate_sysroot
