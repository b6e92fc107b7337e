"""Ask a running edgeaid: numpy and the standard library only.

from edgeaid.client import Client

with Client("/run/edgeai/edgeaid.sock") as client:
    print(client.classify("digits", open("three.png", "rb").read()))
    scores = client.infer("digits", image)          # numpy in, dict of numpy out
"""

from .aio import AsyncClient
from .codec import Inference
from .sync import Client

__all__ = ["AsyncClient", "Client", "Inference"]
