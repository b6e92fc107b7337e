require toy.inc

do_compile() {
    bazel build //toy
}
