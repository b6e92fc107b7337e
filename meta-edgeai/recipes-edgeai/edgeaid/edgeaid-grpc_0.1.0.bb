SUMMARY = "edgeaid: gRPC interface"
DESCRIPTION = "What edgeaid imports for gRPC interface: Open Inference Protocol over gRPC."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-grpcio python3-protobuf"
