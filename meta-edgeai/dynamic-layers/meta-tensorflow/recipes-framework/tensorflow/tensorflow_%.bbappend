# Limits, one Bazel at a time, XNNPACK on, AWS, HDFS and NCCL off: see the class.
inherit edgeai_bazel
