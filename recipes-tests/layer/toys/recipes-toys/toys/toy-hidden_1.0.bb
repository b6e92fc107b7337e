require toy.inc

# Bazel is there, and whatever runs it is in the sources.
DEPENDS = "bazel-native"
do_compile() {
    ./build.sh
}
