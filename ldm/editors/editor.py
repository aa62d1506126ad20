"""The base of all editors: a model, the settings of its calls, batches of requests, and results."""

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from ldm.checkpoints.open import Precision, load
from ldm.diffusion.schedule import sampling_timesteps
from ldm.editors import compose
from ldm.models.clip_text import TextConditioner
from ldm.models.diffusion import DiffusionModel
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.presets import Compositing, Preset, Sampling, Settings
from ldm.samplers import SAMPLERS
from ldm.samplers.common import Callback, Denoise
from ldm.utils.device import choose_device
from ldm.utils.errors import UserError, attempt
from ldm.utils.image import as_list, to_tensor
from ldm.utils.png import next_number, save_png
from ldm.utils.random import NoiseSource

if TYPE_CHECKING:
    from omegaconf import DictConfig

GAP = 4  # pixels between pictures shown side by side

S = TypeVar("S", bound=Settings)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result(Generic[S]):
    """Pictures, and how they were made.

    Attributes:
        images: the pictures.
        settings: all settings of the call.
    """

    images: list[Image.Image]
    settings: S

    def save(self, folder: str | Path, name: str = "edit") -> list[Path]:
        """Write the pictures as `folder/<name>_0.png` and on, numbered on from what is there; return their paths.

        Each has its own settings in its metadata.

        Raises:
            UserError: a file cannot be written.
        """
        if Path(name).name != name:
            raise UserError(f"name {name!r}: expected the beginning of a file's name")
        folder = Path(folder)
        first = next_number(folder, f"{name}_")
        paths = [folder / f"{name}_{first + i}.png" for i in range(len(self.images))]
        for i, (path, picture) in enumerate(zip(paths, self.images, strict=True)):
            save_png(picture, path, self.record(i))
        return paths

    def record(self, i: int) -> dict[str, Any]:
        """Return what picture i alone is made again from, as it is written into its file."""
        seeds = getattr(self, "seeds", None)
        return asdict(self.settings) | ({"seed": seeds[i], "n_samples": 1} if seeds else {})

    def _repr_png_(self) -> bytes:
        """The pictures side by side, as a notebook shows them."""
        width = sum(image.width + GAP for image in self.images) - GAP
        sheet = Image.new("RGB", (width, max(image.height for image in self.images)), "white")
        left = 0
        for image in self.images:
            sheet.paste(image, (left, 0))
            left += image.width + GAP
        return sheet._repr_png_()


class Prepared(Protocol):
    """A request that an editor has prepared: its region, and whatever else sampling it takes."""

    @property
    def region(self) -> compose.Region: ...

    @property
    def seed(self) -> int: ...


P, Q, R, T = TypeVar("P", bound=Prepared), TypeVar("Q"), TypeVar("R", bound=Result), TypeVar("T")


class Editor(Generic[S]):
    """A model with settings, which hold where a call does not say otherwise.

    Args:
        model: on any device and in any precision.
        settings: a preset's name in `configs/`, a YAML file of your own, or settings that have all been chosen.
        show_progress: show a progress bar where a call brings no callback of its own.
        changes: of those settings, by name. A setting means the same here and in a call.

    Raises:
        UserError: the model is of another kind, or a setting is unknown or wrong.
    """

    kind: ClassVar[type[Settings]]
    """The settings' class."""

    def __init__(
        self,
        model: DiffusionModel,
        settings: S | str | Path = "default",
        *,
        show_progress: bool = True,
        **changes: object,
    ):
        self.check(model)
        self.model, self.show_progress = model, show_progress
        if not isinstance(settings, self.kind | str | Path):
            raise UserError(f"settings: {type(settings).__name__}, expected {self.kind.__name__} or a preset")
        preset = Preset.of(settings) if isinstance(settings, Settings) else Preset.read(self.kind, settings)
        self.preset = preset.changed(**changes)
        self.settings: S = self.preset.settings()

    @classmethod
    def from_pretrained(
        cls,
        config: "str | Path | DictConfig",
        file: str | Path | Sequence[str | Path] | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        **options: Any,
    ) -> Self:
        """Return the editor of a model from files.

        Args:
            config, file, device, precision: see `ldm.load`.
            options: further arguments of the constructor.
        """
        return cls(load(config, file, device, precision, check=cls.check), **options)

    @staticmethod
    def check(model: nn.Module) -> None:
        """Refuse a model that this editor cannot use.

        Raises:
            UserError: it is of another kind.
        """

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Move the model to a device, and to another precision if one is given; return the editor."""
        self.model.to(choose_device(device) if isinstance(device, str) else device, dtype)
        return self

    def changed(self, changes: Mapping[str, object]) -> S:
        """Return the settings of a call that changes some."""
        return self.preset.changed(**changes).settings()

    @property
    def like(self) -> Tensor:
        """A tensor on the model's device, in its precision."""
        return next(self.model.parameters())

    def progress_bar(self, total: int, unit: str, callback: Callable | None) -> tqdm:
        """Return a progress bar, hidden where a call has a callback of its own or nobody looks."""
        shown = self.show_progress and callback is None
        return tqdm(total=total, unit=unit, disable=None if shown and "ipykernel" not in sys.modules else not shown)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Encode pictures to latents (B, c, h, w) float32, by the posterior's mode: nothing about them is random."""
        return self.model.encode(image.to(self.like.device), None).float()

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Decode latents to pictures (B, 3, H, W) float32 on the CPU, about [-1, 1]."""
        pictures = self.model.decode(z.to(self.like)).float().cpu()
        check_finite(pictures)  # would be written as arbitrary colours
        return pictures

    def to_cells(self, mask: Tensor) -> Tensor:
        """Shrink a mask (B, 1, H, W) to latent cells (B, 1, h, w): a cell is edited if any of its pixels is."""
        return F.max_pool2d(mask, self.model.downsampling)

    def run_sampler(
        self, denoise: Denoise, x: Tensor, settings: Sampling, noise: NoiseSource, callback: Callback | None = None
    ) -> Tensor:
        """Sample from pure noise x (B, ...), on the default grid, by the settings' sampler, steps and eta."""
        schedule = self.model.schedule
        timesteps = sampling_timesteps(settings.steps, schedule.num_timesteps)
        eta = {"eta": settings.eta} if settings.sampler == "ddim" else {}
        sampler, start = SAMPLERS[settings.sampler], x.to(self.like.device)
        return sampler(denoise, start, schedule, timesteps, noise=noise.randn, callback=callback, **eta)

    def region(self, image: Image.Image, mask: Tensor, settings: Compositing) -> compose.Region:
        """Return the part of a picture that an edit inside a mask (1, 1, H, W) works on, as the settings say."""
        image, multiple = compose.keep_alpha(image), self.model.multiple
        view = compose.choose_view(mask, settings, self.model.image_size)
        window = view.to_model(view.cut(to_tensor(image)), multiple)
        self.warn_of_strangers(window, view.size, settings)
        return compose.Region(image, mask, view, window, view.mask_to_model(view.cut(mask), multiple))

    def warn_of_strangers(self, window: Tensor, seen: tuple[int, int], settings: Compositing) -> None:
        """Warn of a picture, as the model sees it (1, 3, H, W), that is unlike all those that the model knows.

        Args:
            seen: (height, width) of the picture in the window, which is padded.
        """
        domain, size, (height, width) = self.model.domain, self.model.image_size, seen
        if settings.crop == "none" and max(height, width) > (2 * size if domain is None else size):
            known = f"trained at {size}" if domain is None else f"which knows {domain.pictures}"
            log.warning("picture %dx%d, for a model %s: --crop auto edits a square around the mask at the model's size",
                        width, height, known)  # fmt: skip
        elif domain is not None and domain.round_trip is not None:
            error = (self.decode(self.encode(window)).clamp(-1, 1) - window).square().mean().item()
            decibels = 10 * math.log10(4 / max(error, 1e-12))
            if decibels < domain.round_trip:
                log.warning("the picture looks like nothing that this model knows, %s: the autoencoder reconstructs "
                            "it at %.0f dB, pictures that it knows at %g or more; expect little of the edit",
                            domain.pictures, decibels, domain.round_trip)  # fmt: skip


class RegionEditor(Editor[S], Generic[S, Q, P, R]):
    """An editor that paints into the masked region of a picture, of one request or of several in batches.

    Subclasses prepare a request, sample a batch of prepared ones, and put pictures together into a result.
    """

    def prepare(self, request: Q, settings: S) -> P:
        """Prepare a request.

        Raises:
            UserError: something is wrong with it.
        """
        raise NotImplementedError

    def sample_batch(self, windows: Tensor, holes: Tensor, batch: list[P], settings: S) -> Tensor:
        """Sample one latent, (B, c, h, w), for each window (B, 3, H, W) and its hole (B, 1, H, W)."""
        raise NotImplementedError

    def result(self, prepared: P, images: list[Image.Image], seeds: list[int], settings: S) -> R:
        """Return the result of a request."""
        raise NotImplementedError

    @torch.no_grad()
    def edit_all(self, requests: Sequence[Q], **changes: object) -> list[R | UserError]:
        """Edit several pictures, a sample of each; those whose windows are of one size in one batch.

        Request k alone is edited the same by a call with its seed, except for rounding.

        Args:
            changes: settings by name; `n_samples` is not read.

        Returns:
            For each request its result or its error.
        """
        settings = self.changed({**changes, "n_samples": 1})
        results = [attempt(self.prepare, request, settings) for request in requests]
        ready = [row for row, one in enumerate(results) if not isinstance(one, UserError)]
        for rows in compose.grouped(ready, lambda row: results[row].region.window.shape):
            batch = [results[row] for row in rows]
            windows, holes = (torch.cat([getattr(one.region, name) for one in batch]) for name in ("window", "hole"))
            outputs = self.decode(self.sample_batch(windows, holes, batch, settings)).split(1)
            for row, one, output in zip(rows, batch, outputs, strict=True):
                images, own = one.region.composite(output, settings), replace(settings, seed=one.seed)
                results[row] = self.result(one, images, [one.seed], own)
        return results


def for_each(edit: Callable[..., T], image: object, *others: object) -> list[T] | None:
    """Call `edit` for each picture of a list or batch, with its share of the others; None if it is a single one.

    Args:
        others: each a list as long as the pictures', or one value for all of them.

    Raises:
        UserError: a list is of another length.
    """
    images = as_list(image)
    if images is None:
        return None
    columns = []
    for other in others:
        column = as_list(other)
        if column is not None and len(column) != len(images):
            raise UserError(f"{len(column)} values for {len(images)} pictures, expected as many, or one for all")
        columns.append([other] * len(images) if column is None else column)
    return [edit(*row) for row in zip(images, *columns, strict=True)]


def own_seed(seed: int | None, settings: S) -> int:
    """Return the seed of a request, or of the settings where it has none.

    Raises:
        UserError: it is not a seed.
    """
    return settings.seed if seed is None else replace(settings, seed=seed).seed


def check_prompts(model: LatentDiffusion, prompts: Sequence[str]) -> None:
    """Check that a model can read prompts.

    Raises:
        UserError: one is not a text, or has a word that the model does not know.
    """
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise UserError(f"prompt {prompt!r}: expected a text")
    model.conditioner.encoder.tokenizer(list(prompts))


def check_finite(output: Tensor) -> None:
    """Check that all numbers of a model's output are finite.

    Raises:
        UserError: some are not.
    """
    if not output.isfinite().all():
        raise UserError("the model's output is not finite: its weights are damaged, or its precision is too low")


def check_text_model(model: LatentDiffusion, purpose: str) -> None:
    """Check that a model turns a prompt, and nothing else, into a picture.

    Raises:
        UserError: it is of another kind; `purpose` says what needs such a model.
    """
    if not isinstance(model, LatentDiffusion):
        raise UserError(f"{purpose}: expected a text-to-image model, found {type(model).__name__}")
    check_unet(model, purpose, model.autoencoder.latent_channels, "a text-to-image model")
    if not isinstance(model.conditioner, TextConditioner):
        raise UserError(
            f"{purpose}: expected a model of prompts, found the conditioner {type(model.conditioner).__name__}"
        )


def check_exemplar_model(model: LatentDiffusion, purpose: str) -> None:
    """Check that a model paints what one picture shows into the hole of another.

    Raises:
        UserError: it is of another kind.
    """
    if not isinstance(model, LatentDiffusion):
        raise UserError(f"{purpose}: expected an exemplar model, found {type(model).__name__}")
    check_unet(model, purpose, 2 * model.autoencoder.latent_channels + 1, "an exemplar model")
    if not hasattr(model.conditioner, "image_size"):
        raise UserError(
            f"{purpose}: expected a model of exemplars, found the conditioner {type(model.conditioner).__name__}"
        )


def check_unconditional_model(model: LatentDiffusion, purpose: str) -> None:
    """Check that a model without a conditioner works without one; it may be class-conditional.

    Raises:
        UserError: its UNet needs a context, or has other input channels.
    """
    check_unet(model, purpose, model.autoencoder.latent_channels, "a model without conditioner", classes=True)
    if model.unet.context_dim is not None:
        raise UserError(f"{purpose}: the UNet needs a context, but the model has no conditioner")


def check_unet(model: LatentDiffusion, purpose: str, channels: int, kind: str, classes: bool = False) -> None:
    """Check the input channels of a model's UNet, and that it needs no class.

    Raises:
        UserError: it has other input channels than `kind` has, or is class-conditional.
    """
    found, by_example = model.unet.in_channels, 2 * model.autoencoder.latent_channels + 1
    if found != channels:
        hint = f" ({found} are the input channels of an exemplar model)" if found == by_example else ""
        raise UserError(f"{purpose}: the UNet has {found} input channels, expected the {channels} of {kind}{hint}")
    if not classes and getattr(model, "num_classes", None):
        raise UserError(
            f"{purpose}: the UNet is conditioned on {model.num_classes} classes, expected {kind}, which has no classes"
        )
