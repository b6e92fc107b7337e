"""Part of lighten.py: training that knows of the rounding to 8 bits or to one, and of a teacher.

Weights are rounded per output channel before each step and take the gradient as if they were not (straight through).
For 8 bits activations are rounded too, by layers that follow their range. Scaling by a batch normalisation behind it
changes nothing of a rounding per channel, so that it need not be folded first; its statistics stay as they are. With
one bit the sums change so much that these statistics are learnt anew, and activations stay as they are.
"""

from importlib import import_module
from typing import Any

import numpy as np
import tensorflow as tf

keras: Any = import_module("keras")

#: Share of a new range in the running one.
_MOMENTUM = 0.1


class Rounded(keras.layers.Layer):  # type: ignore[misc]
    """Activations as 8 bits hold them; the range follows what is seen while `learning`."""

    def build(self, shape: Any) -> None:
        self.low = self.add_weight(name="low", shape=(), initializer="zeros", trainable=False)
        self.high = self.add_weight(name="high", shape=(), initializer="ones", trainable=False)

    def call(self, x: Any) -> Any:
        self.low.assign(self.low + _MOMENTUM * (tf.minimum(tf.reduce_min(x), 0.0) - self.low))
        self.high.assign(self.high + _MOMENTUM * (tf.maximum(tf.reduce_max(x), 1e-3) - self.high))
        return tf.quantization.fake_quant_with_min_max_vars(x, self.low, self.high)


def joined(layer: Any) -> bool:
    """Whether converters fuse what follows into the layer, so that its own output is never rounded."""
    followers = [node.operation for node in layer._outbound_nodes]
    fused = ("BatchNormalization", "ReLU", "Activation")
    return any(type(f).__name__ in fused for f in followers) or not followers


def rounding(model: Any) -> Any:
    """The network with rounded activations, with weights of its own."""

    def call(layer: Any, *values: Any, **more: Any) -> Any:
        result = layer(*values, **more)
        moves = "Pooling" in type(layer).__name__ or type(layer).__name__ in ("Flatten", "Reshape", "Dropout")
        return result if moves or layer.name in plain else Rounded()(result)

    plain = {layer.name for layer in model.layers if joined(layer)}
    functional = keras.Model(model.inputs, model.outputs)
    made = keras.models.clone_model(functional, call_function=call)
    for layer in model.layers:
        made.get_layer(layer.name).set_weights(layer.get_weights())
    return made


def summed(layer: Any) -> list[int]:
    """Axes of a layer's kernel that belong to one output channel."""
    rank = len(layer.kernel.shape)
    return [0, 1] if type(layer).__name__ == "DepthwiseConv2D" else list(range(rank - 1))


def rounded(kernel: Any, axes: list[int]) -> Any:
    """Weights as 8 bits per output channel hold them."""
    scale = tf.maximum(tf.reduce_max(tf.abs(kernel), axes, keepdims=True), 1e-9) / 127
    return tf.round(kernel / scale) * scale


def binary(kernel: Any, axes: list[int]) -> Any:
    """Weights of one bit: their sign, times the mean size of their output channel (XNOR-Net, arXiv:1603.05279)."""
    scale = tf.reduce_mean(tf.abs(kernel), axes, keepdims=True)
    return tf.where(kernel < 0, -scale, scale)


def weighted(network: Any, form: str) -> list[Any]:
    """Layers whose kernels are rounded. With one bit the first and the last are left out, as is usual."""
    layers = [layer for layer in network.layers if getattr(layer, "kernel", None) is not None]
    if form != "binary":
        return layers
    if len(layers) < 3:
        raise ValueError("there is no layer between the first and the last that has weights")
    return layers[1:-1]


def train(model: Any, data: tuple[Any, Any], epochs: int, teacher: Any, temperature: float, form: str) -> Any:
    """Train on in place; with a teacher nine tenths of the loss are its softened answers.

    `form` is "" (nothing is rounded), "int8" or "binary", after which the kernels hold two values per output channel.
    """
    quantised = form == "int8"
    network = rounding(model) if quantised else model
    x, y = data
    answers = np.concatenate([np.asarray(teacher(x[i : i + 256], training=False)) for i in range(0, len(x), 256)]) if (
        teacher is not None
    ) else np.zeros((len(x), 1), np.float32)  # fmt: skip
    logits = not np.allclose(np.asarray(model(x[:8], training=False)).sum(-1), 1, atol=1e-2)
    softened = soften(answers, temperature) if teacher is not None else answers
    layers = weighted(network, form) if form else []
    kernels = [(layer.kernel, summed(layer)) for layer in layers]
    lower = binary if form == "binary" else rounded
    optimiser = keras.optimizers.Adam(1e-3)
    optimiser.build(network.trainable_variables)

    def work(pictures: Any, classes: Any, soft: Any) -> None:
        before = [tf.identity(kernel.value) for kernel, _ in kernels]
        for kernel, axes in kernels:
            kernel.assign(lower(kernel.value, axes))
        with tf.GradientTape() as tape:
            made = network(pictures, training=False) if quantised else network(pictures, training=True)
            scores = made if logits else tf.math.log(made + 1e-7)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, scores))
            if teacher is not None:
                distance = tf.nn.softmax_cross_entropy_with_logits(soft, scores / temperature)
                loss = 0.1 * loss + 0.9 * temperature**2 * tf.reduce_mean(distance)
        gradients = tape.gradient(loss, network.trainable_variables)
        for (kernel, _), value in zip(kernels, before, strict=True):
            kernel.assign(value)
        optimiser.apply(gradients, network.trainable_variables)

    step = tf.function(work)
    generator = np.random.default_rng(4)
    for _ in range(epochs):
        order = generator.permutation(len(x))
        for start in range(0, len(x) - 63, 64):
            part = order[start : start + 64]
            step(tf.constant(x[part]), tf.constant(y[part]), tf.constant(softened[part]))
    if quantised:
        for layer in model.layers:
            layer.set_weights(network.get_layer(layer.name).get_weights())
    if form == "binary":
        for kernel, axes in kernels:
            kernel.assign(binary(kernel.value, axes))
    return model


def soften(answers: Any, temperature: float) -> Any:
    """A teacher's answers (probabilities or logits) at a temperature, as probabilities."""
    sums = answers.sum(-1)
    scores = np.log(answers + 1e-7) if np.allclose(sums, 1, atol=1e-2) else answers
    raised = np.exp((scores - scores.max(-1, keepdims=True)) / temperature)
    result: Any = (raised / raised.sum(-1, keepdims=True)).astype(np.float32)
    return result
