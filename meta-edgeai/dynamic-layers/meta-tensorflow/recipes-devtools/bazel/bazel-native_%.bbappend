# Bazel compiles itself with Bazel: the same limits and the same lock.
inherit edgeai_bazel

# The bootstrap starts Java directly, without Bazel's start-up options: Java reads its heap's cap from here.
export JAVA_TOOL_OPTIONS = "-Xmx${EDGEAI_BAZEL_JVM_MIB}m"
JAVA_TOOL_OPTIONS[vardepvalue] = "1"

# Reason: an append can only inherit after the recipe's "native"; this class sets flags and runs nothing of its own at install.
INSANE_SKIP += "native-last"
