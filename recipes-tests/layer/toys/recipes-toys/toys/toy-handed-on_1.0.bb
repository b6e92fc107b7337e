require toy.inc

# The command is named elsewhere, and an option's value stands between the program and it.
toy_bazel() {
    bazel ${EDGEAI_BAZEL_STARTUP} --output_base ${B}/base "$@"
}
do_install() {
    toy_bazel run //toy:wheel
}
