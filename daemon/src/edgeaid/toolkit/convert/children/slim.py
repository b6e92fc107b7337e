"""Part of lighten.py: a network with fewer channels, for networks that are a chain of layers."""

from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

keras: Any = import_module("keras")

#: Layers that leave the channels as they are.
_KEEPING = {
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Activation", "ReLU",
    "LeakyReLU", "Dropout", "SpatialDropout2D", "Softmax", "ZeroPadding2D", "UpSampling2D", "ELU",
}  # fmt: skip
#: A layer keeps at least so many channels.
_LEAST = 4


def chain(model: Any) -> list[Any]:
    """The layers, if each reads what the one before it gives; else ValueError says where they do not."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if isinstance(model, keras.Sequential):
        return layers
    for before, layer in pairwise(layers):
        if [node.operation for node in layer._inbound_nodes[-1].parent_nodes] != [before]:
            raise ValueError(f"layer {layer.name} does not read what the layer before it gives")
    return layers


def strongest(kernel: Any, share: float) -> Any:
    """Numbers of the output channels that stay: those with the largest weights."""
    size = kernel.shape[-1]
    count = max(min(_LEAST, size), round(size * (1 - share)))
    return np.sort(np.argsort(-np.abs(kernel).reshape(-1, size).sum(0))[:count])


def slim(model: Any, share: float) -> Any:
    """A network with `share` of the channels of every layer but the last removed; ValueError where that fails."""
    layers = chain(model)
    weighted = [layer for layer in layers if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D)]
    if not weighted:
        raise ValueError("there is no convolution or dense layer")
    kept = np.arange(model.inputs[0].shape[-1])
    made: list[tuple[Any, list[Any]]] = []
    for layer in layers:
        config, values, kind = layer.get_config(), layer.get_weights(), type(layer).__name__
        if kind in ("Conv2D", "Dense"):
            kernel = values[0][..., kept, :]
            kept = np.arange(kernel.shape[-1]) if layer is weighted[-1] else strongest(kernel, share)
            values = [kernel[..., kept], *(v[kept] for v in values[1:])]
            config["filters" if kind == "Conv2D" else "units"] = len(kept)
        elif kind == "DepthwiseConv2D" and layer.depth_multiplier == 1:
            values = [values[0][:, :, kept], *(v[kept] for v in values[1:])]
        elif kind == "BatchNormalization":
            values = [v[kept] for v in values]
        elif kind == "Flatten":
            channels = layer.input.shape[-1]
            places = int(np.prod(layer.input.shape[1:-1]))
            kept = (np.arange(places)[:, None] * channels + kept).ravel()
        elif kind not in _KEEPING:
            raise ValueError(f"layer {layer.name} is a {kind}, through which channels are not followed here")
        made.append((type(layer).from_config(config), values))
    network = keras.Sequential([keras.Input(model.inputs[0].shape[1:]), *(layer for layer, _ in made)])
    for layer, values in made:
        layer.set_weights(values)
    return network
