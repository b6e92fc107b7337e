SUMMARY = "gRPC interface of the daemon"
DESCRIPTION = "Open Inference Protocol over gRPC."

inherit packagegroup

RDEPENDS:${PN} = "edgeaid-grpc"
