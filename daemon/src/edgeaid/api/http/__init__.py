"""HTTP on a Unix socket: the Open Inference Protocol v2 with Triton's extensions, and the routes under /edgeai/v1."""
