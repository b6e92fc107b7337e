require toy.inc

# As bazel-native: a script of the sources builds Bazel with Java.
export EXTRA_BAZEL_ARGS = "--jobs=${BAZEL_JOBS} --local_ram_resources=${BAZEL_MEM}"
do_compile() {
    printf '#!/bin/sh\nexec ${TOY_BIN}/bazel $EXTRA_BAZEL_ARGS build //src:bazel\n' > compile.sh
    sh ./compile.sh
}

inherit bazel-base
