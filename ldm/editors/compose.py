"""The geometry around a model: any picture size in, the same size out, and nothing changed away from the mask."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.presets import Compositing
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.mask import mask_box

CONTEXT = 2  # side of the automatic crop, in sides of the mask's bounding box
MAX_ZOOM = 4  # a tiny mask is not enlarged more than this
RING = 8  # colours are compared within this many pixels around the mask (or the feather, if wider)
MIN_RING_PIXELS = 64
GAIN = (0.8, 1.25)  # contrast of an edit is never changed by more than this to match its surroundings

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """The window of a scene that a model works on, and the size (height, width) it works at."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]

    def cut(self, scene: Tensor) -> Tensor:
        """Cut the window out of (B, C, H, W): (B, C, height, width)."""
        return scene[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def crop(self, scene: Image.Image) -> Image.Image:
        """Cut the window out of a picture."""
        return scene.crop((self.left, self.top, self.left + self.width, self.top + self.height))

    def to_model(self, window: Tensor, multiple: int) -> Tensor:
        """Bring a window to the model's size, mirrored at its right and bottom up to multiples of `multiple`."""
        return pad_to_multiple(resize(window, self.size), multiple)

    def mask_to_model(self, window: Tensor, multiple: int) -> Tensor:
        """Bring a window of a mask to the model's size; every cell that it touches is selected."""
        if window.shape[-2:] != self.size:
            window = (F.interpolate(window, self.size, mode="area") > 0).to(window.dtype)
        return pad_to_multiple(window, multiple)

    def inside(self, multiple: int) -> Tensor:
        """Return (1, 1, H, W) of the size of `to_model`'s result: 1 on the picture, 0 on what mirrors it."""
        height, width = self.size
        return F.pad(torch.ones(1, 1, height, width), (0, -width % multiple, 0, -height % multiple))

    def mask_from_model(self, mask: Tensor) -> Tensor:
        """Bring a mask or map of the model's input to the window's size: a pixel gets the highest value on it."""
        return F.adaptive_max_pool2d(mask[..., : self.size[0], : self.size[1]], (self.height, self.width))

    def from_model(self, output: Tensor) -> Tensor:
        """Bring the model's output to the window's size: the padding is cut off and the resizing undone."""
        return resize(output[..., : self.size[0], : self.size[1]], (self.height, self.width))


@dataclass(frozen=True)
class Region:
    """A region of a picture that is to be edited, and how the model sees it.

    Attributes:
        image: the picture, RGB or RGBA.
        mask: (1, 1, H, W), 1 = edit.
        view: the window of it.
        window: (1, 3, h, w) in [-1, 1], what the model sees of the picture; sides multiples of the model's `multiple`.
        hole: (1, 1, h, w), the same of the mask.
    """

    image: Image.Image
    mask: Tensor
    view: View
    window: Tensor
    hole: Tensor

    @property
    def masked(self) -> Image.Image:
        """The picture, RGB, with the region to be edited blanked."""
        return to_pil(to_tensor(self.image)[0] * (1 - self.mask[0]))

    def composite(self, output: Tensor, settings: Compositing) -> list[Image.Image]:
        """Return the finished pictures, from the model's output (B, 3, h, w); see `composite_into`."""
        return composite_into(self.view.from_model(output), self.image, self.mask, self.view, settings)


def whole(scene: Tensor) -> View:
    """Return the view of everything at its own size."""
    height, width = scene.shape[-2:]
    return View(0, 0, height, width, (height, width))


def fitted(scene: Tensor, image_size: int) -> View:
    """Return the view of everything, its longer side seen at `image_size`."""
    height, width = scene.shape[-2:]
    scale = image_size / max(height, width)
    return View(0, 0, height, width, (max(round(height * scale), 1), max(round(width * scale), 1)))


def choose_view(mask: Tensor, settings: Compositing, image_size: int) -> View:
    """Return the view that an edit inside the mask (1, 1, H, W) works on, as the settings say."""
    if settings.crop == "auto":
        return around_mask(mask, image_size, settings.feather)
    return whole(mask)


def around_mask(mask: Tensor, image_size: int, margin: int) -> View:
    """Return a square around the mask with context, seen at `image_size`: a small mask becomes a large one.

    Where the picture ends the window ends too, so beside a long mask it can be a rectangle.

    Args:
        mask: (1, 1, H, W), 1 = repaint, not empty.
        image_size: the longer side of the window as the model sees it.
        margin: pixels of the picture that must be kept around the mask, for blending.
    """
    height, width = mask.shape[-2:]
    left, top, right, bottom = mask_box(mask)
    longest = max(bottom - top, right - left)
    side = max(CONTEXT * longest, longest + 2 * margin, image_size // MAX_ZOOM)
    h, w = min(side, height), min(side, width)
    scale = image_size / max(h, w)
    return View(
        top=min(max((top + bottom - h) // 2, 0), height - h),
        left=min(max((left + right - w) // 2, 0), width - w),
        height=h,
        width=w,
        size=(max(round(h * scale), 1), max(round(w * scale), 1)),
    )


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Group items by a key, in the order of first appearance, as windows of one size are grouped into a batch."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def keep_alpha(image: Image.Image) -> Image.Image:
    """Return the picture in mode RGBA if it has any transparency, else RGB."""
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bicubically, antialiased; an image that already has the size is returned untouched."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Mirror (B, C, H, W) at the right and the bottom, as often as needed, until both sides are multiples."""
    rows, columns = (_mirrored(n, -(-n // multiple) * multiple) for n in x.shape[-2:])
    return x[..., rows.to(x.device)[:, None], columns.to(x.device)]


def _mirrored(n: int, total: int) -> Tensor:
    """Return the indices 0 .. n-1, n-2 .. 1, 0, 1 .. : back and forth over n pixels, `total` long."""
    period = max(2 * (n - 1), 1)
    i = torch.arange(total) % period
    return torch.minimum(i, period - i) if n > 1 else i


def distance(mask: Tensor, limit: int) -> Tensor:
    """Return the Euclidean distance in pixels, (1, 1, H, W), to the nearest repainted pixel of a mask (1, 1, H, W).

    It is computed in the mask's bounding box grown by `limit` pixels, and `inf` outside, so that a small mask is fast.
    """
    from scipy.ndimage import distance_transform_edt  # slow to import

    squared = torch.full_like(mask, torch.inf)
    if mask.any():
        x0, y0, x1, y1 = mask_box(mask)
        rows, columns = slice(max(y0 - limit, 0), y1 + limit), slice(max(x0 - limit, 0), x1 + limit)
        exact = distance_transform_edt((mask[0, 0, rows, columns] <= 0).cpu().numpy())
        squared[..., rows, columns] = torch.from_numpy(exact).square().round()  # whole numbers, exact in float32
    return squared.sqrt()


def feather_weights(far: Tensor, feather: int) -> Tensor:
    """Return the edit's weight at a distance from the mask: 1 on it, falling smoothly to 0 at `feather` pixels."""
    return 0.5 + 0.5 * torch.cos(torch.pi * (far / feather).clamp(max=1)) if feather else (far == 0).float()


def match_colour(edited: Tensor, original: Tensor, ring: Tensor) -> Tensor:
    """Undo the colour shift of an edit, per channel, as far as it shows on the ring around the mask.

    The gain and offset are those that best map the edit's ring to the original's (least squares: an autoencoder's blur,
    unlike a change of contrast, does not count as gain). With too few pixels to tell, the edit comes back as it is.

    Args:
        edited, original: (B, 3, H, W) and (1, 3, H, W).
        ring: (1, 1, H, W) bool.
    """
    if ring.sum() < MIN_RING_PIXELS:
        return edited
    e, o = (image[..., ring[0, 0]] for image in (edited, original))  # (B, 3, n)
    e_mean, o_mean = e.mean(-1, keepdim=True), o.mean(-1, keepdim=True)
    variance = (e - e_mean).square().mean(-1, keepdim=True)
    covariance = ((e - e_mean) * (o - o_mean)).mean(-1, keepdim=True)
    gain = torch.where(variance > 1e-4, covariance / variance.clamp(min=1e-4), 1.0).clamp(*GAIN)
    return (edited - e_mean[..., None]) * gain[..., None] + o_mean[..., None]


def composite(edited: Tensor, original: Tensor, mask: Tensor, feather: int, colour: bool) -> tuple[Tensor, Tensor]:
    """Composite an edit into the original: fully inside the mask, fading out over `feather` pixels outside it.

    Args:
        edited: (B, 3, H, W).
        original: (1, 3, H, W).
        mask: (1, 1, H, W), 1 = repaint.
        feather: width of the blend in pixels; 0 pastes with a hard edge.
        colour: match the edit's colours to the original's around the mask.

    Returns:
        The blend (B, 3, H, W) and its weights (1, 1, H, W): where the weight is 0, the original has to be kept exactly.
    """
    far = distance(mask, max(feather, RING))
    if colour:
        edited = match_colour(edited, original, (far > 0) & (far <= max(feather, RING)))
    weights = feather_weights(far, feather)
    return torch.lerp(original, edited, weights), weights


def composite_into(
    edited: Tensor, image: Image.Image, mask: Tensor, view: View, settings: Compositing
) -> list[Image.Image]:
    """Return the finished pictures: edits of a window (B, 3, height, width) composited into the scene.

    Pixels that compositing keeps, and the scene's alpha, are the scene's own bytes.
    """
    hole = view.cut(mask)
    if settings.composite == "none":
        return [stitch(e, image, torch.ones_like(hole), view, settings.rounding) for e in edited]
    feather = settings.feather if settings.composite == "feather" else 0
    blended, weights = composite(edited, to_tensor(view.crop(image)), hole, feather, settings.match_colour)
    pictures = [stitch(b, image, weights, view, settings.rounding) for b in blended]
    check_background(pictures, image, mask, feather)
    return pictures


def stitch(edit: Tensor, image: Image.Image, weights: Tensor, view: View, rounding: str) -> Image.Image:
    """Put one edit (3, height, width) into its scene; where the weight is 0 the scene is untouched."""
    result = np.array(image.convert("RGB"))
    shows = (weights[0, 0] > 0).numpy()
    window = result[view.top : view.top + view.height, view.left : view.left + view.width]
    window[shows] = np.array(to_pil(edit, rounding))[shows]
    picture = Image.fromarray(result)
    if image.mode == "RGBA":
        picture.putalpha(image.getchannel("A"))
    return picture


def check_background(pictures: list[Image.Image], image: Image.Image, mask: Tensor, feather: int) -> None:
    """Check what compositing promises: beyond `feather` pixels from the mask nothing has changed."""
    background = (distance(mask, feather) > feather)[0, 0].numpy()
    before = np.array(image)[background]
    for picture in pictures:
        if not np.array_equal(np.array(picture)[background], before):
            raise AssertionError("an edit has changed pixels outside the mask and its feather")
