require toy.inc

# Bazel comes along, and a script of the sources runs it while the recipe installs.
DEPENDS = "bazel-native"
do_bazel_compile() {
    :
}
do_install() {
    printf '#!/bin/sh\nexec ${TOY_BIN}/bazel run //toy:wheel\n' > wheel.sh
    sh ./wheel.sh
}
