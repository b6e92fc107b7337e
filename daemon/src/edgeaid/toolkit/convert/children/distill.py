"""Child (environment tensorflow): a small Keras network learns to answer as a large one does.

Usage: python distill.py REQUEST.json
No labels are needed. Probabilities are compared as probabilities, softened by a temperature (arXiv:1503.02531); other
values as they are, each channel by its own spread, those far from a channel's mean counting more. A detector's places
where the teacher sees nothing teach only that: boxes and classes count by the teacher's own certainty there, for which
its layout has to be known (arXiv:1801.07893).

Request: student (.keras), teacher (.keras or .tflite), data (.npz: train and test, float32 with the samples first),
epochs, temperature, layout ("values"; "cells" = [..., A*(5+C)] raw x, y, w, h, object, classes; "rows" = [N, 4+C] boxes
and scores), anchors (A), output (.keras), directory (for student.tflite, distilled.tflite and, from Keras,
teacher.tflite), answer (JSON to write: before and after).
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

keras: Any = import_module("keras")
Loss = Callable[[Any, Any], Any]
_BATCH = 32


def answers(model: Any, pictures: Any) -> list[Any]:
    """All outputs of a Keras network, the samples first."""
    parts = []
    for start in range(0, len(pictures), 128):
        made = model(pictures[start : start + 128], training=False)
        parts.append([np.asarray(m) for m in (made if isinstance(made, list | tuple) else [made])])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def answers_of_file(path: str, pictures: Any) -> list[Any]:
    """All outputs of a .tflite file as real values, the samples first."""
    interpreter = tf.lite.Interpreter(model_path=path, num_threads=2)
    interpreter.allocate_tensors()
    entries, ends = interpreter.get_input_details(), interpreter.get_output_details()
    if len(entries) != 1 or tuple(entries[0]["shape"][1:]) != pictures.shape[1:]:
        shapes = ", ".join(str(list(e["shape"])) for e in entries)
        raise SystemExit(f"the teacher takes {shapes}, the student [1, {', '.join(map(str, pictures.shape[1:]))}]")
    scale, zero = entries[0]["quantization"]
    kind = entries[0]["dtype"]
    made: list[list[Any]] = [[] for _ in ends]
    for picture in pictures:
        value = picture[None]
        if scale:
            limits = np.iinfo(kind)
            value = np.clip(np.rint(value / scale) + zero, limits.min, limits.max)
        interpreter.set_tensor(entries[0]["index"], value.astype(kind))
        interpreter.invoke()
        for end, values in zip(ends, made, strict=True):
            scale_out, zero_out = end["quantization"]
            stored = interpreter.get_tensor(end["index"]).astype(np.float32)
            values.append((stored - zero_out) * scale_out if scale_out else stored)
    return [np.concatenate(values) for values in made]


def matched(outputs: list[Any], wanted: list[tuple[int, ...]]) -> list[Any]:
    """The teacher's outputs in the order of the student's, by their shapes; SystemExit where one has none."""
    left, result = list(outputs), []
    for shape in wanted:
        fitting = next((number for number, o in enumerate(left) if o.shape[1:] == shape), None)
        if fitting is None:
            offered = ", ".join(str(list(o.shape[1:])) for o in outputs)
            raise SystemExit(
                f"the student's output {list(shape)} has no counterpart: the teacher gives {offered}; build the "
                "student with the teacher's outputs, before any selection of boxes"
            )
        result.append(left.pop(fitting))
    return result


def probabilities(values: Any) -> bool:
    """Whether values are shares of 1 along the last axis."""
    return bool(values.shape[-1] > 1 and values.min() >= -1e-3 and np.allclose(values.sum(-1), 1, atol=2e-2))


def shares(temperature: float) -> Loss:
    """Loss of probabilities along the last axis."""

    def distance(taught: Any, made: Any) -> Any:
        soft = tf.nn.softmax(tf.math.log(taught + 1e-7) / temperature)
        scores = tf.math.log(made + 1e-7) / temperature
        return temperature**2 * tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(soft, scores))

    return distance


def values(target: Any) -> Loss:
    """Loss of anything else, by the mean and the spread of each channel of the teacher's answers."""
    axes = tuple(range(target.ndim - 1))
    mean, spread = target.mean(axes), np.maximum(target.std(axes), 1e-6)

    def distance(taught: Any, made: Any) -> Any:
        far = tf.abs((taught - mean) / spread)
        return tf.reduce_mean((1 + far) * huber((made - taught) / spread))

    return distance


def huber(x: Any) -> Any:
    """Squares of what is small, lengths of what is large."""
    x = tf.abs(x)
    return tf.where(x < 1, x**2 / 2, x - 0.5)


def cells(anchors: int, temperature: float) -> Loss:
    """Loss of a grid of cells as YOLO v2 has it."""

    def distance(taught: Any, made: Any) -> Any:
        shape = [-1, anchors, taught.shape[-1] // anchors]
        t, s = tf.reshape(taught, shape), tf.reshape(made, shape)
        sure, seen = tf.sigmoid(t[..., 4]), tf.sigmoid(s[..., 4])
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(sure, s[..., 4])
        objects = tf.reduce_sum(tf.abs(sure - seen) ** 1.5 * entropy)
        centres = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(t[..., :2]), s[..., :2]), -1)
        sizes = tf.reduce_sum(huber(10 * (t[..., 2:4] - s[..., 2:4])), -1) / 10
        soft = tf.nn.softmax(t[..., 5:] / temperature)
        classes = tf.nn.softmax_cross_entropy_with_logits(soft, s[..., 5:] / temperature) * temperature**2
        return (4 * objects + tf.reduce_sum(sure * (centres + 2 * sizes + classes))) / (tf.reduce_sum(sure) + 1)

    return distance


def rows(taught: Any, made: Any) -> Any:
    """Loss of rows of a box, in units of the picture, and scores between 0 and 1."""
    sure = tf.reduce_max(taught[..., 4:], -1)
    chances = tf.clip_by_value(made[..., 4:], 1e-6, 1 - 1e-6)
    wanted = taught[..., 4:]
    entropy = -wanted * tf.math.log(chances) - (1 - wanted) * tf.math.log(1 - chances)
    scores = tf.reduce_sum(tf.abs(wanted - chances) ** 1.5 * entropy)
    boxes = tf.reduce_sum(huber(20 * (made[..., :4] - taught[..., :4])), -1)
    return (4 * scores + tf.reduce_sum(sure * boxes)) / (tf.reduce_sum(sure) + 1)


def losses(targets: list[Any], request: dict[str, Any]) -> list[Loss]:
    """A loss per output, of (teacher's values, student's values). SystemExit where a layout does not fit."""
    temperature, anchors = request["temperature"], request["anchors"]
    made: list[Loss] = []
    for target in targets:
        channels = target.shape[-1]
        if request["layout"] == "cells":
            if channels % anchors or channels // anchors < 6:
                raise SystemExit(f"{channels} channels are not {anchors} anchors of 5 values and classes each")
            made.append(cells(anchors, temperature))
        elif request["layout"] == "rows":
            if channels < 5 or target.min() < -0.5 or target.max() > 2:
                raise SystemExit(f"{channels} values are not a box and scores, in units of the picture and 0 to 1")
            made.append(rows)
        else:
            made.append(shares(temperature) if probabilities(target) else values(target))
    return made


def train(student: Any, pictures: Any, targets: list[Any], request: dict[str, Any]) -> None:
    """Train in place."""
    epochs = request["epochs"]
    steps = max(1, len(pictures) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(3e-4, epochs * steps, 0.02, warmup_target=3e-3, warmup_steps=steps)
    optimiser = keras.optimizers.Adam(rate)
    optimiser.build(student.trainable_variables)
    compared = losses(targets, request)

    def work(values: Any, taught: Any) -> Any:
        with tf.GradientTape() as tape:
            made = student(values, training=True)
            outputs = made if isinstance(made, list | tuple) else [made]
            loss = tf.add_n([f(t, m) for f, t, m in zip(compared, taught, outputs, strict=True)])
        optimiser.apply(tape.gradient(loss, student.trainable_variables), student.trainable_variables)
        return loss

    step = tf.function(work)
    generator = np.random.default_rng(4)
    for epoch in range(epochs):
        order = generator.permutation(len(pictures))
        total = 0.0
        for start in range(0, max(1, len(pictures) - _BATCH + 1), _BATCH):
            part = order[start : start + _BATCH]
            total += float(step(tf.constant(pictures[part]), [tf.constant(t[part]) for t in targets]))
        print(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}", flush=True)


def row(model: Any, pictures: Any, taught: list[Any]) -> dict[str, float]:
    """How far a network's answers are from the teacher's: the worst output's figures."""
    figures = []
    for made, target in zip(answers(model, pictures), taught, strict=True):
        spread = float(target.std()) or 1.0
        both = made.std() > 0 and target.std() > 0
        figures.append({
            "error": float(np.sqrt(np.mean((made - target) ** 2))) / spread,
            "correlation": float(np.corrcoef(made.ravel(), target.ravel())[0, 1]) if both else 0.0,
            "agreement": float((made.argmax(-1) == target.argmax(-1)).mean()),
        })  # fmt: skip
    return max(figures, key=lambda r: r["error"])


def export(path: str, output: str) -> None:
    """A float .tflite of a Keras file, to be timed."""
    convert: Any = import_module("tf_convert")
    with open(output, "wb") as file:
        file.write(convert.function_of({"kind": "keras", "model": path})().convert())


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    keras.utils.set_random_seed(3)
    student = keras.models.load_model(request["student"], compile=False)
    with np.load(request["data"], allow_pickle=False) as data:
        pictures, tested = data["train"], data["test"]
    if request["teacher"].endswith(".tflite"):
        taught, expected = (answers_of_file(request["teacher"], p) for p in (pictures, tested))
    else:
        teacher = keras.models.load_model(request["teacher"], compile=False)
        taught, expected = answers(teacher, pictures), answers(teacher, tested)
        export(request["teacher"], os.path.join(request["directory"], "teacher.tflite"))
    shapes = [tuple(o.shape[1:]) for o in student.outputs]
    taught, expected = matched(taught, shapes), matched(expected, shapes)
    export(request["student"], os.path.join(request["directory"], "student.tflite"))
    before = row(student, tested, expected)
    print(f"the teacher answered {len(pictures)} samples", flush=True)
    train(student, pictures, taught, request)
    after = row(student, tested, expected)
    student.save(request["output"])
    export(request["output"], os.path.join(request["directory"], "distilled.tflite"))
    with open(request["answer"], "w") as file:
        json.dump({"before": before, "after": after}, file)


if __name__ == "__main__":
    main(sys.argv[1])
