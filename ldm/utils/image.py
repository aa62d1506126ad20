"""Reading of image files as upright 8-bit sRGB pictures, and conversion between pictures and tensors."""

import io
import logging
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from ldm.utils.errors import UserError, reason

# Only decoders of plain raster files: some of Pillow's others start programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

Picture = Image.Image | np.ndarray | Tensor | str | Path
"""A picture as users have it: a PIL image, (H, W, 3) uint8, (3, H, W) in [0, 1], or the path of a file."""

TOLERANCE = 1e-3  # by which values of a tensor may lie beyond [0, 1], as after resizing

log = logging.getLogger(__name__)


def as_image(picture: Picture, name: str = "image") -> Image.Image:
    """Return any `Picture` as a PIL image.

    Arrays may also be (H, W) or have an alpha channel, tensors may be (1, 3, H, W).

    Args:
        name: of the picture, for messages.

    Raises:
        UserError: it is something else, or its file cannot be read.
    """
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, str | Path):
        return open_image(picture)
    if isinstance(picture, np.ndarray) and picture.ndim == 4 and len(picture) == 1:
        picture = picture[0]
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim in (2, 3) and picture.size:
        if picture.ndim == 2 or picture.shape[2] in (3, 4):
            return Image.fromarray(np.ascontiguousarray(picture))
    if isinstance(picture, Tensor) and picture.is_floating_point() and picture.shape[-3:-2] == (3,) and picture.numel():
        if picture.ndim == 3 or picture.shape[:-3] == (1,):
            low, high = picture.min().item(), picture.max().item()
            if not -TOLERANCE <= low <= high <= 1 + TOLERANCE:  # clamped it would be another picture
                raise UserError(f"{name}: a tensor with values from {low:g} to {high:g}, expected 0 to 1")
            return to_pil(2 * picture.reshape(picture.shape[-3:]) - 1)
    raise UserError(
        f"{name}: expected a path, a PIL image, an array (H, W, 3) of uint8 or a tensor (3, H, W) in [0, 1], "
        f"found {_kind_of(picture)}"
    )


def as_list(pictures: object) -> list | None:
    """Return the pictures of a list or a batch, (B, 3, H, W) or (B, H, W, 3); None for a single picture."""
    if isinstance(pictures, list | tuple | Iterator):
        return list(pictures)
    if isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4 and len(pictures) != 1:
        return list(pictures)
    return None


def _kind_of(value: object) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"{type(value).__name__} {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else type(value).__name__


def open_image(path: str | Path) -> Image.Image:
    """Open a picture as a viewer shows it: upright, 8-bit sRGB, in mode RGB, or RGBA if the file has transparency.

    The format is detected from the content, not the name. 16-bit grey is scaled to 8 bits, an embedded colour profile
    is converted to sRGB, and an animation gives its first frame. Colours under transparent pixels are kept.

    Raises:
        UserError: the file is missing, damaged, truncated or not an image, or its header announces more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels (checked before decoding).
    """
    image = decode(path)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    try:
        rgb = _to_srgb(image, path)
    except ValueError as error:  # LAB and the like without a profile
        raise UserError(f"{path}: cannot turn an image of mode {image.mode} into RGB") from error
    rgb.info = {}  # the applied profile, and anything else that Pillow would write into the next file
    if alpha:
        rgb.putalpha(alpha)
    return rgb


def decode(path: str | Path) -> Image.Image:
    """Decode the first frame of an image file, upright and in its own mode, with 16-bit grey scaled to 8 bits (L)."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:  # missing, name too long, folder not accessible
        raise UserError(f"{path}: {reason(error)}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise UserError(f"{path}: is {kind}, expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                file.load()
                image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: refused, more than {Image.MAX_IMAGE_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image in a supported format ({', '.join(FORMATS)})") from error
    except Exception as error:  # decoders raise almost anything on damaged files
        raise UserError(f"{path}: cannot be read as an image ({' '.join(str(error).split())})") from error
    if image.mode == "F":
        raise UserError(f"{path}: floating point pixels, expected 8 or 16 bits per channel")
    return _to_8bit(image) if image.mode.startswith("I") else image


def picture_size(file: str | Path) -> tuple[int, int]:
    """Read the width and height of a picture from its header.

    Raises:
        UserError: the file is not a picture.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return picture.size
    except Exception as error:  # as in `decode`
        why = (getattr(error, "strerror", None) or "cannot be read as an image").lower()
        raise UserError(f"{file}: {why}") from error


def of_one_size(files: list[Path], size: tuple[int, int] | None = None) -> list[Path]:
    """Check that all pictures have the given width and height, by default those of the first, and return the files.

    Raises:
        UserError: a picture has another size, or a file is not a picture.
    """
    for file in files:
        found = picture_size(file)
        size = size or found
        if found != size:
            raise UserError(f"{file}: is {found[0]}x{found[1]}, expected {size[0]}x{size[1]}")
    return files


def _to_8bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip, to mode L: 65535 -> 255."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image, path: str | Path) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):  # the colour engine does not take palettes and alpha
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert converted is not None  # it is only for an image changed in place
        return converted
    except (ImageCms.PyCMSError, OSError) as error:
        log.warning("%s: colour profile ignored (%s)", path, " ".join(str(error).split()))
        return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Convert a picture to (1, 3, H, W) float32 in [-1, 1], dropping transparency."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pil(image: Tensor, rounding: str = "round") -> Image.Image:
    """Convert (3, H, W) in [-1, 1] to an RGB picture: values are clipped, then rounded to 8 bits (or `truncate`d)."""
    values = (image.detach().float().cpu().clamp(-1, 1) + 1) / 2 * 255
    if rounding == "round":
        values = values.round()
    return Image.fromarray(values.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
