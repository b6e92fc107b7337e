"""Triton's own client over the daemon's gRPC socket.

pip install 'tritonclient[grpc]' && python triton_client.py [unix:/run/edgeai/grpc/edgeaid.sock]
"""

import sys

import numpy as np
import tritonclient.grpc as triton

address = sys.argv[1] if len(sys.argv) > 1 else "unix:/run/edgeai/grpc/edgeaid.sock"
client = triton.InferenceServerClient(address)
if not client.is_server_ready():
    sys.exit(f"no daemon is ready at {address}")
metadata = client.get_model_metadata("digits")
described = metadata.inputs[0]
tensor = triton.InferInput(described.name, list(described.shape), described.datatype)
tensor.set_data_from_numpy(np.full(list(described.shape), -128, np.int8))
answer = client.infer("digits", [tensor])
scores = answer.as_numpy(metadata.outputs[0].name)
print(f"{answer.get_response().model_name} version {answer.get_response().model_version}: {scores.ravel().tolist()}")
