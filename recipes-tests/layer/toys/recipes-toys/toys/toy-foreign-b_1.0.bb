require toy.inc

CUSTOM_BAZEL_FLAGS = "-c opt --jobs=auto"
do_compile() {
    : --define tflite_with_xnnpack=false ${CUSTOM_BAZEL_FLAGS}
    toy_bazel
}

inherit edgeai_bazel
