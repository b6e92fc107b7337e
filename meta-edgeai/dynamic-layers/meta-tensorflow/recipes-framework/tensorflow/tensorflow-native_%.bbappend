# Limits, one Bazel at a time, XNNPACK on, AWS, HDFS and NCCL off: see the class.
inherit edgeai_bazel

# Reason: an append can only inherit after the recipe's "native"; this class sets flags and runs nothing of its own at install.
INSANE_SKIP += "native-last"
