require toy.inc

do_bazel_compile() {
    toy_bazel
}

inherit edgeai_bazel
