require toy.inc

do_compile() {
    bazel ${EDGEAI_BAZEL_STARTUP} build -j 64 //toy
}
