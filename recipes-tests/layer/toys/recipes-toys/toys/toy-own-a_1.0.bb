require toy.inc

do_bazel_compile() {
    bazel ${EDGEAI_BAZEL_STARTUP} build //toy
}
