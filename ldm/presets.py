"""Settings of the editors, and the presets in `configs/` that hold their defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import Field

from ldm.config import load_config, plain
from ldm.samplers.repaint import Walk, jump_schedule, network_calls
from ldm.utils.checked import checked
from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest
from ldm.utils.project import CONFIGS

S = TypeVar("S", bound="Settings")

AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
LAST_SEED = 2**63 - 1  # a generator takes a bit more
STOCHASTIC = "ddim"  # the sampler that takes an eta


class Settings:
    """The settings of a kind of edit: a frozen object whose values have been checked.

    Attributes:
        folder: where its presets are, in `configs/`.
    """

    folder: ClassVar[str]

    @classmethod
    def read(cls, name: str | Path = "default", below: Mapping[str, Any] | None = None, /, **changes: Any) -> Self:
        """Return the settings of a preset, with some changed; see `Preset.read` and `Preset.changed`."""
        return Preset.read(cls, name, below).changed(**changes).settings()

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Filter values, such as a command's flags, by the names of this kind's settings."""
        names = field_names(cls)
        return {name: value for name, value in values.items() if name in names}


@dataclass(frozen=True)
class Preset(Generic[S]):
    """Settings from which calls depart: the number of steps may still depend on the sampler that a call chooses.

    Attributes:
        kind: of the settings.
        values: by the names of its fields; `steps` may be a number for each sampler.
    """

    kind: type[S]
    values: Mapping[str, Any]

    @classmethod
    def read(cls, kind: type[S], name: str | Path = "default", below: Mapping[str, Any] | None = None) -> "Preset[S]":
        """Read `configs/<kind.folder>/<name>.yaml`, or a file of your own; what it leaves out is as in `default`.

        Args:
            below: values that beat `default`, and are beaten by another file.

        Raises:
            UserError: there is no such file, or it has an unknown key.
        """
        shipped = {file.stem: file for file in sorted((CONFIGS / kind.folder).glob("*.yaml"))}
        file = shipped.get(str(name), Path(name))
        if not os.path.isfile(file):  # a Path of too long a name would raise
            raise UserError(f"{kind.folder} settings {name}: neither a file nor one of {', '.join(shipped)}")
        config = load_config(shipped["default"], file)
        own = {} if file == shipped["default"] else load_config(file)
        below = {key: value for key, value in (below or {}).items() if key not in own}
        values = {**plain(config, resolve=True), **below}
        _check_names(kind, values, f"{kind.folder} settings {name}")
        return cls(kind, values)

    @classmethod
    def of(cls, settings: S) -> "Preset[S]":
        """Return the preset of settings that have all been chosen."""
        return cls(type(settings), vars(settings))

    def changed(self, **changes: Any) -> "Preset[S]":
        """Return the preset with other values.

        Its `eta` is that of its own sampler: another one that takes none gets none.

        Raises:
            UserError: there is no setting of a name; the nearest one is named.
        """
        _check_names(self.kind, changes, "settings")
        values = {**self.values, **changes}
        if "sampler" in changes and "eta" not in changes:
            if changes["sampler"] not in (self.values["sampler"], STOCHASTIC):
                values["eta"] = 0.0
        return Preset(self.kind, values)

    def settings(self) -> S:
        """Return the settings, checked.

        Raises:
            UserError: a value is of the wrong type or out of range.
        """
        steps, sampler = self.values["steps"], self.values.get("sampler")
        if not isinstance(steps, Mapping):
            return self.kind(**self.values)
        self.kind(**{**self.values, "steps": 1})  # refuses an unknown sampler
        if sampler not in steps:
            raise UserError(f"steps: the preset has no number for the sampler {sampler}, expected steps with it")
        return self.kind(**{**self.values, "steps": steps[sampler]})


def field_names(kind: type[Settings]) -> list[str]:
    """Return the names of the settings of a kind."""
    return [field.name for field in fields(kind)]  # type: ignore[arg-type]  # all kinds are dataclasses


def _check_names(kind: type[Settings], given: Mapping[str, Any], label: str) -> None:
    known = field_names(kind)
    for key in given:
        if key not in known:
            raise UserError(f"{label}: unknown key {key!r}; {nearest(key, known)}")


@checked
class Drawing(Settings):
    """Settings of how samples are drawn.

    Args:
        sampler: a function of `ldm.samplers`, by its name.
        steps: timesteps visited.
        eta: 0 deterministic to 1 ancestral, for `ddim` alone.
        seed: sample k draws all its noise from a generator seeded `seed + k`.
        n_samples: pictures made in one batch.
        rounding: of the pictures to 8 bits.
    """

    sampler: Literal["ddim", "ddpm", "dpm_solver", "plms"]
    steps: AtLeast1
    eta: float
    seed: AtLeast0
    n_samples: AtLeast1
    rounding: Literal["round", "truncate"]

    def __post_init__(self):
        if self.eta and self.sampler != STOCHASTIC:
            raise UserError(f"eta {self.eta}: the sampler {self.sampler} takes no eta, only {STOCHASTIC} does")
        highest = LAST_SEED - (self.n_samples - 1)
        if self.seed > highest:
            raise UserError(
                f"seed {self.seed}: expected {highest} or less: the last of {self.n_samples} samples has seed + "
                f"{self.n_samples - 1}"
            )


@checked
class Sampling(Drawing):
    """Settings of how a latent diffusion model is sampled.

    Args:
        guidance_scale: classifier-free guidance, 1 = none.
    """

    folder = "txt2img"
    guidance_scale: float


@checked
class Compositing(Settings):
    """Settings of how the edit of a region is composited into its picture.

    Args:
        crop: `none` edits the picture at its own size; `auto` edits a square around the mask at the model's size.
        composite: `feather` blends into the original over `feather` pixels outside the mask, `paste` cuts hard at its
            edge, `none` keeps what the model made of the background too.
        feather: pixels.
        match_colour: when compositing, first match colours on the ring around the mask.
        mask_rule: see `ldm.utils.mask.parse_mask`.
        rounding: of the pictures to 8 bits.
    """

    crop: Literal["none", "auto"]
    composite: Literal["feather", "paste", "none"]
    feather: AtLeast0
    match_colour: bool
    mask_rule: Literal["any", "luma"]
    rounding: Literal["round", "truncate"]


@checked
class EditSettings(Sampling, Compositing):
    """All settings of an edit by example.

    Args:
        exemplar_fit: `stretch` the exemplar to the encoder's square (as in training), `crop` its middle, or `original`:
            stretched, with transparency ignored and values rounded to float16, as the original's script does.
    """

    folder = "edit"
    exemplar_fit: Literal["stretch", "crop", "original"]


@checked
class PixelSampling(Drawing):
    """Settings of how a pixel model is sampled.

    Args:
        classifier_scale: of a classifier's guidance (2105.05233), if there is one.
    """

    folder = "sample"
    sampler: Literal["ddpm", "ddim", "dpm_solver"]
    classifier_scale: float


@checked
class RePaintSettings(Drawing, Compositing, Walk):
    """All settings of filling a hole by RePaint.

    Args:
        sampler: of the steps down.
        steps: of the grid; the original's t_T.
        guidance_scale: classifier-free guidance of models that follow a prompt or an exemplar, 1 = none.
        classifier_scale: of a classifier's guidance (2105.05233), if there is one.
    """

    folder = "repaint"
    sampler: Literal["ddpm", "ddim", "dpm_solver"]
    guidance_scale: float
    classifier_scale: float

    def __post_init__(self):
        super().__post_init__()
        self.times()

    def times(self) -> list[int]:
        """Return the walk through time, see `jump_schedule`."""
        return jump_schedule(self.steps, self)

    def calls(self) -> int:
        """Count the network calls for one picture; with guidance each is a batch of two."""
        return network_calls(self.times())


@checked
class MaskInference(Settings):
    """Settings of how a mask is inferred.

    Args:
        n_maps: noises over which the mask's map is averaged.
        strength: noise level of the map, as a share of the schedule's timesteps, in (0, 1].
        threshold: where the map, scaled to [0, 1], is above it, the picture is edited; in (0, 1).
        clamp: values of the map are cut at this multiple of its mean.
        seed: of the map's noises.
    """

    n_maps: AtLeast1
    strength: Share
    threshold: Annotated[float, Field(gt=0, lt=1)]
    clamp: Annotated[float, Field(gt=0)]
    seed: Annotated[int, Field(ge=0, le=LAST_SEED)]


@checked
class Encoding(Settings):
    """Settings of how far a picture is encoded.

    Args:
        steps: of the DDIM grid; only its lowest `encode_ratio` is visited, up by the inversion and down by the edit.
        encode_ratio: how far up the picture is encoded, in (0, 1]: the more, the freer is the edit.
        refine: fixed-point iterations in each step of the inversion, for a closer round trip; each is one more
            evaluation of the network.
    """

    steps: AtLeast1
    encode_ratio: Share
    refine: AtLeast0

    def __post_init__(self):
        encoded_steps(self.encode_ratio, self.steps)


@checked
class DiffEditSettings(Compositing, MaskInference, Encoding):
    """All settings of DiffEdit.

    Args:
        guidance_scale: classifier-free guidance of the edit, 1 = none. The inversion has none.
        seed: of the map's noises; all else is deterministic.
    """

    folder = "diffedit"
    guidance_scale: float

    def evaluations(self, mask: bool) -> int:
        """Count the network evaluations for one picture; `mask`: it is inferred, not given.

        2 for each map; for each step upwards 1, and 1 for each refinement; for each step down 2, or 1 without guidance.
        """
        up, down = 1 + self.refine, 1 if self.guidance_scale == 1 else 2
        return 2 * self.n_maps * mask + encoded_steps(self.encode_ratio, self.steps) * (up + down)


def encoded_steps(ratio: float, steps: int) -> int:
    """Count the timesteps of the grid that an encoding to `ratio` visits.

    Raises:
        UserError: it visits none.
    """
    visited = round(ratio * steps)
    if visited < 1:
        raise UserError(
            f"encode_ratio {ratio:g} of {steps} steps: encodes not a single step, expected {1 / steps:g} or more"
        )
    return visited
