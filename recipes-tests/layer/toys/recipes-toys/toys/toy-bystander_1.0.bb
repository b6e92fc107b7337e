require toy.inc

# Speaks of Bazel, runs none.
do_compile() {
    # bazel build //toy is not for us
    rm -rf bazel-out BUILD.bazel
    echo "bazel is not used"
}
