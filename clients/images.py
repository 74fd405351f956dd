"""People's image files, made into what a model reads."""

import warnings
from pathlib import Path

import numpy as np
from infosink.v1 import model_pb2
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UnreadableImageError
from .frames import native_size, pad_to_model

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")
_LARGEST_FILE = 64 << 20
_LARGEST_IMAGE = 50_000_000
_EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "HSV", "LAB"}


def read_image(path: Path, space: model_pb2.ImageSpace, *, resize: bool, invert: bool) -> NDArray[np.uint8]:
    """An image file in the model's frame.

    The image is made grey or coloured as the model needs; where it is transparent it takes the model's background.

    Args:
        path: A PNG, JPEG, WebP, GIF (its first frame), BMP or PPM file in the native or the model's frame.
        space: The model's sample space.
        resize: Whether an image of another size is fitted into the native frame, its proportions kept.
        invert: Whether light and dark are exchanged.

    Returns:
        uint8 [height, width, channels].

    Raises:
        UnreadableImageError: If the file is missing, empty, no image, too large, or of the wrong size.
    """
    image = _opened(path)
    # Inverted later, this is the background too.
    background = 255 - space.background if invert else space.background
    image = _opaque(image, background).convert(_mode(path, space))
    if invert:
        image = ImageOps.invert(image)
    native, model = native_size(space), (space.height, space.width)
    size = (image.height, image.width)
    if size not in (native, model):
        if not resize:
            frames = " or ".join(dict.fromkeys((_size(native), _size(model))))
            raise UnreadableImageError(
                f"{path} has {_size(size)} pixels; the model reads {frames}: fit it with --resize"
            )
        image = _fitted(image, native, space.background)
    array = np.asarray(image, np.uint8).reshape(image.height, image.width, space.channels)
    return array if array.shape[:2] == model else pad_to_model(array[np.newaxis], space)[0]


def looks_inverted(image: NDArray[np.uint8], space: model_pb2.ImageSpace) -> bool:
    """Whether the border of the native frame is nearer to the background's opposite than to the background.

    Args:
        image: uint8 [height, width, channels] in the model's frame.
        space: The model's sample space.
    """
    height, width = native_size(space)
    native = image[space.padding_top :, space.padding_left :][:height, :width]
    border = np.concatenate([native[0], native[-1], native[:, 0], native[:, -1]])
    return abs(float(np.median(border)) - space.background) > 127.5


def _opened(path: Path) -> Image.Image:
    try:
        size = path.stat().st_size
        if size == 0:
            raise UnreadableImageError(f"{path} is empty; give an image file")
        if size > _LARGEST_FILE:
            raise UnreadableImageError(f"{path} has {size:,} bytes; image files of up to {_LARGEST_FILE:,} are read")
        # The limit below is stricter than the one that Pillow warns of, and damaged notes beside the pixels do no harm.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            # Only the header has been read so far.
            if image.width * image.height > _LARGEST_IMAGE:
                raise UnreadableImageError(
                    f"{path} has {_size((image.height, image.width))} pixels; "
                    f"images of up to {_LARGEST_IMAGE:,} are read: make it smaller first"
                )
            if image.mode not in _EIGHT_BIT_MODES:
                raise UnreadableImageError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8")
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise UnreadableImageError(f"{path} is not an image; give one of {', '.join(_FORMATS)}") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"{path} has too many pixels; make it smaller first") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnreadableImageError(f"{path} cannot be read: {reason}") from None


def _fitted(image: Image.Image, size: tuple[int, int], background: int) -> Image.Image:
    """The image as large as `size` (height, width) holds it, in the middle; Pillow's own makes thin ones vanish."""
    height, width = size
    scale = min(height / image.height, width / image.width)
    fitted = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
    canvas = Image.new(image.mode, (width, height), (background,) * len(image.getbands()))
    canvas.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
    return canvas


def _opaque(image: Image.Image, background: int) -> Image.Image:
    if not image.has_transparency_data:
        return image
    canvas = Image.new("RGBA", image.size, (background, background, background, 255))
    return Image.alpha_composite(canvas, image.convert("RGBA"))


def _mode(path: Path, space: model_pb2.ImageSpace) -> str:
    modes = {1: "L", 3: "RGB"}
    if space.channels not in modes:
        raise UnreadableImageError(f"{path} cannot be read by a model of {space.channels} channels; it needs 1 or 3")
    return modes[space.channels]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
