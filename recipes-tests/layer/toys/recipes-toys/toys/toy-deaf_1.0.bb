require toy.inc

do_compile() {
    bazel ${EDGEAI_BAZEL_STARTUP} --ignore_all_rc_files build //toy
}
