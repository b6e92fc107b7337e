require toy.inc

do_compile() {
    bazel ${EDGEAI_BAZEL_STARTUP} build //toy
    bazel run //toy:wheel
}
