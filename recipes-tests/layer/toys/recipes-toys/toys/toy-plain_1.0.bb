require toy.inc

# No class, not the compile step, and not in the task itself.
toy_wheel() {
    bazel ${EDGEAI_BAZEL_STARTUP} run //toy:wheel
}
do_install() {
    toy_wheel
}
