"""The three networks. Inputs are [1,H,W,1] greys from 0 to 1; outputs are raw scores without an activation.

Raw scores, not probabilities: a softmax in int8 turns one step of rounding before it into a dozen behind it, and the
same file must give the same numbers, but for a step or two, on every processor.
"""

from __future__ import annotations

from typing import Any

import keras
import measure
import tensorflow as tf
from keras import layers

#: Grey levels to what the first layer sees.
DIGIT_SIDE = 32
SCENE_SIDE = 96
#: Cells of the detector's output along each side.
CELLS = 12
CLASSES = 10


def _convolution(x: Any, filters: int, stride: int = 1) -> Any:
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.95)(x)
    return layers.ReLU(max_value=6.0)(x)


class _Doubled(layers.Layer):  # type: ignore[misc]  # keras has no types
    """Twice as high and wide, nearest neighbour: one operator, where Keras' own layer exports a chain of five."""

    def call(self, x: Any) -> Any:
        """[n,h,w,c] to [n,2h,2w,c]."""
        return tf.image.resize(x, [2 * x.shape[1], 2 * x.shape[2]], method="nearest")


def digits(batch: int | None = None) -> keras.Model:
    """[n,32,32,1] to [n,10]: one score per digit."""
    image = keras.Input((DIGIT_SIDE, DIGIT_SIDE, 1), batch_size=batch, name="image")
    x = _convolution(image, 16, 2)
    x = _convolution(x, 32)
    x = _convolution(x, 32, 2)
    x = _convolution(x, 48)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(image, layers.Dense(CLASSES, name="scores")(x), name="digits")


def scenes(batch: int | None = None) -> keras.Model:
    """[n,96,96,1] to [n,12,12,30]: per cell and anchor tx, ty, tw, th, objectness and ten class scores."""
    image = keras.Input((SCENE_SIDE, SCENE_SIDE, 1), batch_size=batch, name="image")
    x = _convolution(image, 16, 2)
    x = _convolution(x, 24, 2)
    x = _convolution(x, 32)
    x = _convolution(x, 48, 2)
    x = _convolution(x, 48)
    x = _convolution(x, 48)
    cells = layers.Conv2D(len(measure.ANCHORS) * (5 + CLASSES), 1, name="cells")(x)
    return keras.Model(image, cells, name="digit-scenes")


def mask(batch: int | None = None) -> keras.Model:
    """[n,96,96,1] to [n,48,48,11]: per point one score for the background and for each digit."""
    image = keras.Input((SCENE_SIDE, SCENE_SIDE, 1), batch_size=batch, name="image")
    half = _convolution(image, 16, 2)
    quarter = _convolution(half, 24, 2)
    eighth = _convolution(quarter, 40, 2)
    eighth = _convolution(eighth, 48)
    eighth = _convolution(eighth, 40)
    x = _Doubled()(eighth)
    x = _convolution(layers.Concatenate()([x, quarter]), 24)
    x = _Doubled()(x)
    x = _convolution(layers.Concatenate()([x, half]), 16)
    return keras.Model(image, layers.Conv2D(1 + CLASSES, 1, name="points")(x), name="digit-mask")
