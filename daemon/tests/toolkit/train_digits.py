"""Draws digits and trains a tiny Keras classifier on them. The tensorflow environment runs it.

usage: train_digits.py DIRECTORY [EPOCHS]: writes DIRECTORY/digits.keras, DIRECTORY/train/<n>.png (to calibrate with),
DIRECTORY/labelled/<class>/<n>.png and DIRECTORY/test/<class>/<n>.png
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a computer without CUDA is not an error
HERE = Path(__file__).resolve().parent
# The directory of a program comes first where Python looks for modules, and `inspect` in this one is not the
# standard library's.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

import numpy as np  # noqa: E402  the path above has to be set first
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

SIZE = 24


def draw(digit: int, generator: np.random.Generator) -> Image.Image:
    """A digit, shifted, tilted, scaled and noisy, light on dark."""
    image = Image.new("L", (SIZE * 2, SIZE * 2))
    font = ImageFont.load_default(size=float(generator.uniform(26, 40)))
    x, y = generator.uniform(9, 18, 2)
    ImageDraw.Draw(image).text((x, y - 8), str(digit), fill=int(generator.integers(150, 256)), font=font)
    image = image.rotate(float(generator.uniform(-15, 15))).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    noisy = np.asarray(image, np.float32) + generator.normal(0, 12, (SIZE, SIZE))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def main(directory: Path, epochs: int) -> None:
    """Draw, train, save."""
    import tensorflow as tf

    generator = np.random.default_rng(5)
    tf.keras.utils.set_random_seed(5)
    labels = generator.integers(0, 10, 3000)
    pictures = [draw(int(n), generator) for n in labels]
    values = np.stack([np.asarray(p, np.float32) / 255 for p in pictures])[..., None]
    for i in range(1000):
        part = directory / "labelled" / str(labels[i])
        part.mkdir(parents=True, exist_ok=True)
        pictures[i].save(part / f"{i:04}.png")
    (directory / "train").mkdir(parents=True)
    for i in range(100):
        pictures[i].save(directory / "train" / f"{i:03}.png")
    for i in range(200):
        digit = i % 10
        (directory / "test" / str(digit)).mkdir(parents=True, exist_ok=True)
        draw(digit, generator).save(directory / "test" / str(digit) / f"{i:03}.png")
    layers = tf.keras.layers
    model = tf.keras.Sequential([
        layers.Input((SIZE, SIZE, 1)),
        layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Flatten(), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(values, labels, epochs=epochs, batch_size=64, verbose=0)
    model.save(directory / "digits.keras")
    model.export(directory / "saved_model", verbose=False)
    frozen = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec([1, SIZE, SIZE, 1], tf.float32, name="input")
    )
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph = convert_variables_to_constants_v2(frozen)
    (directory / "frozen.pb").write_bytes(graph.graph.as_graph_def().SerializeToString())
    (directory / "nodes.txt").write_text(f"{graph.inputs[0].op.name}\n{graph.outputs[0].op.name}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print((__doc__ or "").strip())
        sys.exit(0 if len(sys.argv) > 1 else 64)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12)
