"""From the bytes of a picture to an input tensor. Runs in the media worker, never in the daemon's own process.

A pixel has 256 values, so mean, standard deviation and quantisation are one table of 256 entries per channel: the
same arithmetic for every datatype, and the cost of a look-up per pixel.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InvalidData, InvalidModel, TooLarge
from ..models.rules import PictureRules
from ..tensors import NUMPY, TensorSpec
from .placement import Placement

Array = npt.NDArray[Any]
#: Width and height in pixels.
Size = tuple[int, int]

#: The only decoders that a picture from outside can reach.
FORMATS: Final = ("JPEG", "PNG", "BMP")
#: 32 Mi pixels, 128 MiB decoded: above any camera module's video modes and its 12 Mpixel stills.
MAX_PIXELS: Final = 32 << 20
#: With twice the size, a score of a small quantised network moved by 0.07 on a real picture.
_MARGIN: Final = 3
_ORIENTATION_TAG: Final = 0x0112
#: EXIF orientation to the operation that undoes it (CIPA DC-008, Orientation).
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Those that swap width and height.
_TURNED: Final = frozenset(_UPRIGHT[n] for n in (5, 6, 7, 8))
_FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def to_tensor(
    picture: bytes | memoryview, spec: TensorSpec, rules: PictureRules, out: Array, max_pixels: int = MAX_PIXELS
) -> Placement:
    """Decode `picture` (JPEG, PNG or BMP) and write it into `out` as `rules` say.

    `out` has the shape and dtype of `spec`: [1,H,W,C] or [H,W,C], or channels first where only that fits; C is 1 or 3.
    A JPEG much larger than the tensor is decoded at a half, a quarter or an eighth of its size (see `_reduced`).
    Returns where the tensor lies in the picture. Raises InvalidData for bytes that are not a picture, TooLarge
    for more than `max_pixels`, InvalidModel when rules and tensor do not go together.
    """
    height, width = _height_width_channels(out, spec.name, rules).shape[:2]
    image, full = _decode(picture, max_pixels, lambda size: _reduced(size, (width, height), rules))
    return _place(image, full, spec, rules, out)


def to_pixels(
    picture: bytes | memoryview, side: int, filter: str = "bilinear", max_pixels: int = MAX_PIXELS
) -> tuple[Placement, Array]:
    """Decode `picture` and make it smaller until its longer side has `side` pixels.

    Returns where it lies in itself, with its full size, and its pixels [height,width,3], RGB. Errors as in `to_tensor`.
    """
    rules = PictureRules(filter=filter)
    image, full = _decode(picture, max_pixels, lambda size: _reduced(size, _within(size, side), rules))
    target = _within(full, side)
    pixels = image.convert("RGB")
    if pixels.size != target:
        pixels = _fit(pixels, full, target, rules)[0]
    return Placement(*full), np.asarray(pixels)


def _within(size: Size, side: int) -> Size:
    """A size of the same shape whose longer side has at most `side` pixels."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def decode(picture: bytes | memoryview, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a JPEG, PNG or BMP to an upright picture of mode RGB or L, alpha dropped, first frame only.

    The size in the header is checked before anything of that size is allocated. Raises InvalidData or TooLarge.
    """
    return _decode(picture, max_pixels, None)[0]


def _decode(
    picture: bytes | memoryview, max_pixels: int, enough: Callable[[Size], Size | None] | None
) -> tuple[Image.Image, Size]:
    """The upright picture and its full upright size (width, height).

    `enough` says for the full size which smaller one still serves (None = only the full one): a JPEG is then decoded
    at the smallest of 1/8, 1/4 and 1/2 that is not below it.
    """
    try:
        # Pillow warns about odd EXIF data, and about bombs: its own limit is global, ours is per call and strict.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(picture), formats=FORMATS)
            width, height = opened.size
            if width * height > max_pixels:
                raise TooLarge(f"picture has {width} x {height} pixels, more than {max_pixels}; send a smaller one")
            operation = _UPRIGHT.get(_orientation(opened))
            turned = operation in _TURNED
            full = (height, width) if turned else (width, height)
            smaller = enough(full) if enough is not None else None
            if smaller is not None:
                opened.draft(None, smaller[::-1] if turned else smaller)
            opened.load()
            image = _eight_bits(opened)
    except TooLarge:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(f"picture is larger than {max_pixels} pixels; send a smaller one") from error
    except UnidentifiedImageError as error:
        raise InvalidData(_not_a_picture(picture)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes (SyntaxError, struct.error)
        raise InvalidData(f"picture is damaged or not supported: {error}") from error
    return image if operation is None else image.transpose(operation), full


def _not_a_picture(data: bytes | memoryview) -> str:
    from ..models import foreign  # only needed here

    what = foreign.name_of(data)
    this = f"this is {what}" if what else "this is not a picture that can be read"
    if what in {f"a {name} picture" for name in FORMATS}:
        this += " with a damaged header"
    return f"{this}; send one of {', '.join(FORMATS)}"


def _reduced(full: Size, target: Size, rules: PictureRules) -> Size | None:
    """How small a picture may be decoded for a tensor of `target` (width, height): thrice what it is resized to.

    Measured against decoding whole, over real pictures: mean difference below 0.4 of 255 (docs/models.md). Nearest
    neighbour picks single pixels, so there the picture is always decoded whole.
    """
    if rules.filter == "nearest":
        return None
    scale_x, scale_y = target[0] / full[0], target[1] / full[1]
    if rules.resize == "crop":
        scale_x = scale_y = max(scale_x, scale_y)
    elif rules.resize == "letterbox":
        scale_x = scale_y = min(scale_x, scale_y)
    return (max(1, math.ceil(_MARGIN * scale_x * full[0])), max(1, math.ceil(_MARGIN * scale_y * full[1])))


def place(
    image: Image.Image, spec: TensorSpec, rules: PictureRules, out: Array, *, averaged: bool = False
) -> Placement:
    """Write a decoded picture (mode RGB or L) into `out`; see `to_tensor`.

    `averaged`: one much larger than the tensor is averaged over blocks of pixels first, down to what a JPEG would be
    decoded to, which costs half the time and as little of the answer.
    """
    return _place(image, image.size, spec, rules, out, gap=_MARGIN if averaged else None)


def _place(
    image: Image.Image, full: Size, spec: TensorSpec, rules: PictureRules, out: Array, gap: float | None = None
) -> Placement:
    """The same for a picture that was decoded smaller than its `full` size."""
    view = _height_width_channels(out, spec.name, rules)
    height, width = view.shape[:2]
    table = _stored_values(spec, rules)
    mode = "L" if rules.color == "GRAY" else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    image, placement = _fit(image, full, (width, height), rules, gap)
    pixels = np.asarray(image).reshape(height, width, -1)
    if rules.color == "BGR":
        pixels = pixels[:, :, ::-1]
    if table is None:
        view[...] = pixels
    else:
        for channel in range(view.shape[2]):
            view[:, :, channel] = table[channel][pixels[:, :, channel]]
    return placement


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a picture with unreadable EXIF is still a picture; Pillow raises many types here
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Any mode to RGB or L. 16-bit grey keeps its high byte: Pillow's own conversion would cut values off at 255."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    mode = "L" if image.mode in {"1", "L", "LA", "La"} else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _fit(
    image: Image.Image, full: Size, size: Size, rules: PictureRules, gap: float | None = None
) -> tuple[Image.Image, Placement]:
    """Bring the picture to `size` (width, height); geometry is that of its `full` size.

    `gap`: averaging over whole pixels may bring it to so many times `size` first; None = it is not done.
    """
    width, height = full
    target_width, target_height = size
    scale_x, scale_y = target_width / width, target_height / height
    resample = _FILTERS[rules.filter]
    # A picture decoded at 1/2, 1/4 or 1/8 is rounded up to whole pixels; the last ones are covered in part.
    reduction = round(width / image.width) if image.size != full else 1
    if rules.resize == "crop":
        scale = max(scale_x, scale_y)
        half_x, half_y = target_width / scale / 2, target_height / scale / 2
        box = (
            max(0.0, width / 2 - half_x),
            max(0.0, height / 2 - half_y),
            min(float(width), width / 2 + half_x),
            min(float(height), height / 2 + half_y),
        )
        image = image.resize(size, resample, _scaled(box, reduction), gap)
        where = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        return _inverted(image, rules), Placement(width, height, *where)
    everything = _scaled((0.0, 0.0, float(width), float(height)), reduction)
    if rules.resize == "letterbox" and scale_x != scale_y:
        scale = min(scale_x, scale_y)
        inner_width = max(1, min(target_width, round(width * scale)))
        inner_height = max(1, min(target_height, round(height * scale)))
        left, top = (target_width - inner_width) // 2, (target_height - inner_height) // 2
        inner = _inverted(image.resize((inner_width, inner_height), resample, everything, gap), rules)
        canvas = Image.new(image.mode, size, rules.fill if image.mode == "L" else (rules.fill,) * 3)
        canvas.paste(inner, (left, top))
        return canvas, Placement(
            width,
            height,
            left=-left / inner_width,
            top=-top / inner_height,
            right=(target_width - left) / inner_width,
            bottom=(target_height - top) / inner_height,
        )
    return _inverted(image.resize(size, resample, everything, gap), rules), Placement(width, height)


def _scaled(box: tuple[float, float, float, float], reduction: int) -> tuple[float, float, float, float]:
    """A box of the full picture in pixels of one that was decoded `reduction` times smaller."""
    left, top, right, bottom = (side / reduction for side in box)
    return left, top, right, bottom


def _inverted(image: Image.Image, rules: PictureRules) -> Image.Image:
    return ImageOps.invert(image) if rules.invert else image


def _height_width_channels(out: Array, name: str, rules: PictureRules) -> Array:
    """View `out` as [H,W,C], whichever way round it is stored."""
    view = out[0] if out.ndim == 4 and out.shape[0] == 1 else out
    if view.ndim == 3:
        if view.shape[2] == rules.channels:
            return view
        if view.shape[0] == rules.channels:
            return view.transpose(1, 2, 0)
    raise InvalidModel(
        f"input {name!r} has shape {list(out.shape)}; a picture with color = {rules.color} "
        f"needs [1, height, width, {rules.channels}]"
    )


@lru_cache(maxsize=64)
def _stored_values(spec: TensorSpec, rules: PictureRules) -> Array | None:
    """[C,256]: what is stored for each pixel value of each channel, in the tensor's dtype; None = the value itself."""
    if spec.datatype not in NUMPY or spec.datatype == "BOOL":
        raise InvalidModel(f"input {spec.name!r} has datatype {spec.datatype}, which cannot hold a picture")
    dtype = np.dtype(NUMPY[spec.datatype])
    pixels = np.arange(256, dtype=np.float64)
    if rules.mean is None or rules.std is None:
        if dtype == np.uint8:
            return None
        if dtype.kind == "i" and dtype.itemsize > 1:
            raise InvalidModel(
                f"input {spec.name!r} is {spec.datatype}, where raw pixels mean nothing: set mean and std"
            )
        real = np.broadcast_to(pixels - 128 if dtype == np.int8 else pixels, (rules.channels, 256))
        raw: Array = real.astype(dtype)
        return raw
    mean = np.broadcast_to(np.array(rules.mean), (rules.channels,))
    std = np.broadcast_to(np.array(rules.std), (rules.channels,))
    real = (pixels[None, :] - mean[:, None]) / std[:, None]
    if dtype.kind == "f":
        floats: Array = real.astype(dtype)
        return floats
    quantization = spec.quantization
    if quantization is None or len(quantization.scale) != 1 or quantization.scale[0] <= 0:
        raise InvalidModel(
            f"input {spec.name!r} is {spec.datatype} without one scale and zero point; "
            "leave mean and std out to feed raw pixels"
        )
    limits = np.iinfo(dtype)
    stored = np.rint(real / quantization.scale[0]) + quantization.zero_point[0]
    values: Array = np.clip(stored, limits.min, limits.max).astype(dtype)
    return values
