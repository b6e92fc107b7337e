"""Ask a running edgeaid: numpy and the standard library only.

from edgeaid.client import Client

with Client("/run/edgeai/edgeaid.sock") as client:
    print(client.classify("digits", "three.png").label)
    scores = client.infer("digits", image)["scores"]          # numpy in, numpy out
"""

from ..scores import Area, Box, ClassScore, Detected
from .aio import AsyncClient
from .codec import Inference
from .inventory import Device, Model
from .results import Answer, Classification, Detection, Segmentation
from .sync import Client

__all__ = [
    "Answer",
    "Area",
    "AsyncClient",
    "Box",
    "ClassScore",
    "Classification",
    "Client",
    "Detected",
    "Detection",
    "Device",
    "Inference",
    "Model",
    "Segmentation",
]
