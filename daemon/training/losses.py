"""What the networks are taught: targets made from scenes, and the losses that compare."""

from __future__ import annotations

from typing import Any

import measure
import networks
import numpy as np
import numpy.typing as npt
import synth
import tensorflow as tf

Array = npt.NDArray[Any]


def cell_targets(scenes: list[synth.Scene]) -> Array:
    """[n,12,12,A,6] float32: x, y in the cell, log of width, height over the anchor, state, class.

    The state is 1 for an object, 0 for none, -1 where a second anchor fits one as well and may say either.
    """
    cells, anchors = networks.CELLS, np.array(measure.ANCHORS)
    targets = np.zeros((len(scenes), cells, cells, len(anchors), 6), np.float32)
    scale = cells / networks.SCENE_SIDE
    for number, scene in enumerate(scenes):
        for box, digit in zip(scene.boxes * scale, scene.digits, strict=True):
            x, y, size = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2:] - box[:2]
            column, row = min(cells - 1, int(x)), min(cells - 1, int(y))
            both = np.minimum(size, anchors).prod(axis=1)
            overlaps = both / (size.prod() + anchors.prod(axis=1) - both)
            best = int(overlaps.argmax())
            for anchor in range(len(anchors)):
                if anchor != best and overlaps[anchor] > 0.5 and targets[number, row, column, anchor, 4] == 0:
                    targets[number, row, column, anchor, 4] = -1
            logs = np.log(size / anchors[best])
            targets[number, row, column, best] = (x - column, y - row, logs[0], logs[1], 1, digit)
    return targets


def cell_loss(targets: Any, cells: Any) -> Any:
    """YOLO v2's loss, cross entropies instead of squares, focal for the many empty cells."""
    cells = tf.reshape(cells, tf.concat([tf.shape(targets)[:-1], [5 + networks.CLASSES]], axis=0))
    state = targets[..., 4]
    positive = tf.cast(state > 0.5, tf.float32)
    counted = tf.cast(state > -0.5, tf.float32)
    objects = tf.maximum(tf.reduce_sum(positive), 1.0)
    centre = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets[..., 0:2], cells[..., 0:2]), axis=-1)
    difference = tf.abs(targets[..., 2:4] - cells[..., 2:4])
    size = tf.reduce_sum(tf.where(difference < 0.1, difference**2 / 0.2, difference - 0.05), axis=-1)
    chance = tf.sigmoid(cells[..., 4])
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(positive, cells[..., 4])
    focus = tf.abs(positive - chance) ** 1.5
    classes = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets[..., 5], tf.int32), cells[..., 5:])
    sums = tf.reduce_sum(positive * (centre + 2 * size + classes)) + 4 * tf.reduce_sum(counted * focus * entropy)
    # Raw scores beyond 12 mean nothing more, but would stretch the one scale that all values of a cell share in int8.
    return sums / objects + tf.reduce_mean(tf.nn.relu(tf.abs(cells) - 12.0))


def mask_loss(truth: Any, points: Any) -> Any:
    """Cross entropy per point; ink counts three times, because nine points of ten are background."""
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, points)
    weights = tf.where(truth == 0, 1.0, 3.0)
    return tf.reduce_mean(entropy * weights) + tf.reduce_mean(tf.nn.relu(tf.abs(points) - 12.0))
