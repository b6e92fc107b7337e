"""The Open Inference Protocol over gRPC on a Unix socket. Needs the extra `grpc`."""
