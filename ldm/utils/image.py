"""Image files to upright 8-bit sRGB pictures, and pictures to the tensors that networks see and back."""

import io
import logging
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from ldm.utils.errors import UserError

# Only decoders of plain raster files: Pillow also knows formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

Picture = Image.Image | np.ndarray | Tensor | str | Path
"""A picture as people have it: a PIL image, (H, W, 3) uint8, (3, H, W) in [0, 1], or the path of a file."""

log = logging.getLogger(__name__)


def as_image(picture: Picture, name: str = "image") -> Image.Image:
    """Return a picture as a PIL image, whatever it was given as; see `Picture`.

    Arrays may also be (H, W) or have an alpha channel, tensors may be (1, 3, H, W).

    Raises:
        UserError: it is something else, or its file cannot be read; `name` is what the message calls it.
    """
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, str | Path):
        return open_image(picture)
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim in (2, 3):
        if picture.ndim == 2 or picture.shape[2] in (3, 4):
            return Image.fromarray(np.ascontiguousarray(picture))
    if isinstance(picture, Tensor) and picture.is_floating_point() and picture.shape[-3:-2] == (3,):
        if picture.ndim == 3 or picture.shape[:-3] == (1,):
            return to_pil(2 * picture.reshape(picture.shape[-3:]) - 1)
    raise UserError(
        f"{name}: {_kind_of(picture)}, expected a path, a PIL image, an array (H, W, 3) of uint8 or a tensor "
        "(3, H, W) in [0, 1]"
    )


def as_list(pictures: object) -> list | None:
    """Return the pictures of a list or of a batch, (B, 3, H, W) or (B, H, W, 3); None if it is a single picture."""
    if isinstance(pictures, list | tuple):
        return list(pictures)
    if isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4 and len(pictures) != 1:
        return list(pictures)
    return None


def _kind_of(value: object) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"{type(value).__name__} {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else type(value).__name__


def open_image(path: str | Path) -> Image.Image:
    """Open a picture as a person sees it: upright, 8-bit sRGB; mode RGB, or RGBA where the file has transparency.

    The type is told from the content, not the name. 16-bit grey is scaled to 8 bits, an embedded colour profile is
    converted to sRGB, of an animation the first frame is taken. Colours under transparent pixels are the file's own.

    Raises:
        UserError: the file is missing, no image, damaged or cut short, or its header announces more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels (found out before anything is decoded).
    """
    image = decode(path)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    try:
        rgb = _to_srgb(image, path)
    except ValueError as error:  # LAB and the like without a profile
        raise UserError(f"{path}: cannot turn an image of mode {image.mode} into RGB") from error
    rgb.info = {}  # a profile that has been applied, and whatever else Pillow would write into the next file
    if alpha:
        rgb.putalpha(alpha)
    return rgb


def decode(path: str | Path) -> Image.Image:
    """The first frame of an image file, upright and in its own mode, with 16-bit grey scaled to 8 bits (mode L)."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:  # missing, of too long a name, in a folder that may not be entered
        raise UserError(f"{path}: {error.strerror.lower()}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'no file'}, expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                file.load()
                image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels, refused") from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image ({', '.join(FORMATS)} are understood)") from error
    except Exception as error:  # decoders of damaged files raise almost anything
        raise UserError(f"{path}: cannot be read as an image ({' '.join(str(error).split())})") from error
    if image.mode == "F":
        raise UserError(f"{path}: floating point pixels; expected 8 or 16 bits a channel")
    return _to_8bit(image) if image.mode.startswith("I") else image


def picture_size(file: str | Path) -> tuple[int, int]:
    """Width and height of a picture, from its header.

    Raises:
        UserError: it is none.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return picture.size
    except Exception as error:  # as above
        why = (getattr(error, "strerror", None) or "cannot be read as an image").lower()
        raise UserError(f"{file}: {why}") from error


def of_one_size(files: list[Path], size: tuple[int, int] | None = None) -> list[Path]:
    """The same files, all of which have that width and height, by default those of the first.

    Raises:
        UserError: one has not, or is no picture.
    """
    for file in files:
        found = picture_size(file)
        size = size or found
        if found != size:
            raise UserError(f"{file}: is {found[0]}x{found[1]}, expected {size[0]}x{size[1]}")
    return files


def _to_8bit(image: Image.Image) -> Image.Image:
    """16-bit grey (which Pillow would clip, not scale) to mode L: 65535 -> 255."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image, path: str | Path) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):  # palettes and alpha, which the colour engine does not take
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        log.warning("%s: colour profile ignored (%s)", path, " ".join(str(error).split()))
        return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Picture -> (1, 3, H, W) float32 in [-1, 1]; transparency is dropped."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pil(image: Tensor, rounding: str = "round") -> Image.Image:
    """(3, H, W) in [-1, 1] -> RGB picture; values outside are clipped, then rounded to 8 bits (or `truncate`d)."""
    values = (image.detach().float().cpu().clamp(-1, 1) + 1) / 2 * 255
    if rounding == "round":
        values = values.round()
    return Image.fromarray(values.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
