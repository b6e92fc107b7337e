"""TensorFlow Lite flatbuffers: graph, operators, kernels' versions, metadata."""
