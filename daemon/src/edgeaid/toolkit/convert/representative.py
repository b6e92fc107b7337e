"""Representative data: real inputs, normalised as the model was trained, from pictures, .npy or a generator.

Arrays are float32 [samples, ...] without the batch dimension of the model; pictures become
[samples, height, width, channels].
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import InvalidModel, InvalidRequest, NotFound, TooLarge
from ..run import child

Array = npt.NDArray[Any]
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff"})
#: More elements than this are not representative data but a mistake.
_MAX_ELEMENTS: Final = 1 << 28
_MAX_PIXELS: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Normalisation:
    """As [input] of a manifest: real = (pixel - mean) / std, one value or one per channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    color: str = "RGB"
    invert: bool = False

    def apply(self, pixels: Array) -> Array:
        """float32 of uint8 pixels, channels last."""
        values = 255.0 - pixels.astype(np.float32) if self.invert else pixels.astype(np.float32)
        if self.color == "BGR":
            values = values[..., ::-1]
        result: Array = ((values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)).astype(np.float32)
        return result


#: Pixels to 0 .. 1.
PIXELS: Final = Normalisation()


def pictures(directory: Path) -> list[Path]:
    """The pictures in a directory and its subdirectories, by name. Raises NotFound if there are none."""
    paths = sorted(p for p in directory.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise NotFound(f"{directory} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return paths


def picture(path: Path, shape: Sequence[int], rules: Normalisation) -> Array:
    """One picture stretched to `shape` (height, width, channels), bilinear, and normalised. Raises InvalidModel."""
    from PIL import Image, UnidentifiedImageError

    height, width, channels = shape
    if channels not in (1, 3):
        raise InvalidRequest(f"a model with {channels} channels does not take pictures; give an .npy file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise TooLarge(f"{path} has {image.width}x{image.height} pixels; shrink it first")
            mode = image.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(mode.resize((width, height), Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidModel(f"{path} is not a readable picture: {error}") from error
    return rules.apply(pixels.reshape(height, width, channels))


def load(source: str, shape: Sequence[int], rules: Normalisation, most: int, seed: int = 0) -> Array:
    """As `read`, but refuses data that do not vary: their ranges are of no use, and no converter warns of them."""
    values = read(source, shape, rules, most, seed)
    if values.size > 1 and values.min() == values.max():
        raise InvalidModel(f"{source} holds nothing but the value {values.flat[0]:g}; quantisation needs real inputs")
    return values


def read(source: str, shape: Sequence[int], rules: Normalisation, most: int, seed: int = 0) -> Array:
    """Data for a model input of `shape` (without batch).

    `source` is a directory of pictures, an .npy/.npz file, or `file.py:function`, whose function yields arrays;
    pictures are drawn at random when there are more than `most`. Values of .npy files and generators are used as they
    are when they are floating point, and normalised when they are uint8 pixels. Raises NotFound, InvalidModel,
    InvalidRequest.
    """
    path = Path(source)
    if path.is_dir():
        if len(shape) != 3:
            raise InvalidRequest(f"the model's input {list(shape)} takes no pictures; give an .npy file or a generator")
        chosen = pictures(path)
        if len(chosen) > most:
            order = np.random.default_rng(seed).permutation(len(chosen))[:most]
            chosen = [chosen[i] for i in sorted(order)]
        return np.stack([picture(p, shape, rules) for p in chosen])
    if path.suffix in (".npy", ".npz") and path.is_file():
        return fit(_read_numpy(path), shape, rules, most, source)
    file, colon, function = source.rpartition(":")
    if colon and file.endswith(".py") and Path(file).is_file():
        return fit(_generate(Path(file), function, most), shape, rules, most, source)
    raise NotFound(f"{source} is neither a directory of pictures, an .npy or .npz file, nor file.py:function")


def fit(values: Array, shape: Sequence[int], rules: Normalisation, most: int, source: str) -> Array:
    """Bring an array into [samples, *shape]: a batch dimension of 1 and a missing channel are put right."""
    if values.ndim == len(shape) + 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == len(shape) and values.ndim and shape and shape[-1] == 1 and values.shape[1:] == tuple(shape[:-1]):
        values = values[..., None]
    if values.shape[1:] != tuple(shape) or not len(values):
        raise InvalidModel(
            f"{source} has the shape {list(values.shape)}; the model wants [samples, {str(list(shape))[1:]}"
        )
    values = values[:most]
    if values.dtype == np.uint8:
        return rules.apply(values)
    if values.dtype.kind not in "fiub" or not np.isfinite(values.astype(np.float32)).all():
        raise InvalidModel(f"{source} holds values that are not finite numbers")
    return values.astype(np.float32)


def _read_numpy(path: Path) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
        values: Array = loaded[loaded.files[0]] if hasattr(loaded, "files") else loaded
    except (OSError, ValueError, EOFError, IndexError, KeyError) as error:
        raise InvalidModel(f"{path} is not a readable numpy file: {error}") from error
    if values.size > _MAX_ELEMENTS:
        raise TooLarge(f"{path} holds {values.size} values; representative data need a few hundred samples")
    return values


_RUN_GENERATOR: Final = """
import itertools, runpy, sys
import numpy as np
file, name, most, out = sys.argv[1:5]
samples = runpy.run_path(file)[name]()
arrays = []
for sample in itertools.islice(samples, int(most)):
    value = np.asarray(sample[0] if isinstance(sample, (list, tuple)) else sample)
    arrays.append(value[0] if value.ndim > 1 and value.shape[0] == 1 else value)
np.save(out, np.stack(arrays), allow_pickle=False)
"""


def _generate(file: Path, function: str, most: int) -> Array:
    """Run a user's generator in a child: its packages and its mistakes stay there."""
    with tempfile.TemporaryDirectory(prefix="edgeai-") as directory:
        out = Path(directory) / "data.npy"
        done = child([sys.executable, "-c", _RUN_GENERATOR, file, function, str(most), out], timeout=600)
        if done.status != 0:
            raise InvalidModel(f"{file}:{function} failed: {done.reason}")
        return _read_numpy(out)


def labelled(directory: Path, labels: Sequence[str]) -> Iterable[tuple[Path, int]]:
    """(picture, class) of a directory with one subdirectory per class, named by class number or label.

    Raises InvalidModel for a subdirectory that is neither.
    """
    for sub in sorted(p for p in directory.iterdir() if p.is_dir()):
        if sub.name.isascii() and sub.name.isdigit() and sub.name not in labels:
            number = int(sub.name)
        elif sub.name in labels:
            number = labels.index(sub.name)
        else:
            raise InvalidModel(f"{sub} is neither a class number nor one of the labels; name it after its class")
        for path in pictures(sub):
            yield path, number
