"""What can be chosen about an edit. The values live in `configs/`, none of them here."""

import math
from dataclasses import dataclass, fields
from typing import Any

from ldm.samplers import SAMPLERS
from ldm.samplers.repaint import REVERSE, jump_schedule, network_calls
from ldm.utils.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": tuple(sorted(SAMPLERS)),
    "crop": ("none", "auto"),
    "composite": ("feather", "paste", "none"),
    "exemplar_fit": ("stretch", "crop", "original"),
    "mask_rule": ("any", "luma"),
    "rounding": ("round", "truncate"),
}
AT_LEAST = {"steps": 1, "n_samples": 1, "feather": 0, "seed": 0, "n_maps": 1, "refine": 0}
AT_MOST = {"seed": 2**63 - 1}  # a generator takes a bit more
STOCHASTIC = "ddim"  # the sampler that takes an eta
SHARES = {"encode_ratio": "at most", "strength": "at most", "threshold": "less than"}  # more than 0, and ... 1


class Settings:
    """Checks the values of the settings that derive from it.

    Raises:
        UserError: a value is of the wrong type or out of range.
    """

    def __post_init__(self):
        for field in fields(self):
            _check(field.name, getattr(self, field.name), field.type)


@dataclass(frozen=True)
class Drawing(Settings):
    """How samples are drawn.

    Args:
        sampler: a key of `ldm.samplers.SAMPLERS`.
        steps: timesteps visited.
        eta: 0 deterministic to 1 ancestral, for `ddim` alone.
        seed: sample k draws all its noise from a generator seeded `seed + k`.
        n_samples: pictures made in one batch.
        rounding: of the pictures to 8 bits, `round` or `truncate`.
    """

    sampler: str
    steps: int
    eta: float
    seed: int
    n_samples: int
    rounding: str

    def __post_init__(self):
        super().__post_init__()
        if self.eta and self.sampler != STOCHASTIC:
            raise UserError(f"eta {self.eta}: only the sampler {STOCHASTIC} takes it, {self.sampler} has none")
        highest = AT_MOST["seed"] - (self.n_samples - 1)
        if self.seed > highest:
            raise UserError(f"seed {self.seed}: expected {highest} or less, the last of {self.n_samples} samples "
                            f"has the seed plus {self.n_samples - 1}")  # fmt: skip


@dataclass(frozen=True)
class Sampling(Drawing):
    """How samples of a latent diffusion model are drawn.

    Args:
        guidance_scale: classifier-free guidance, 1 = none.
    """

    guidance_scale: float


@dataclass(frozen=True)
class Compositing(Settings):
    """How the edit of a region comes into its picture.

    Args:
        crop: `none` edits the picture at its own size; `auto` edits a square around the mask at the model's size.
        composite: `feather` blends into the original over `feather` pixels outside the mask, `paste` cuts hard at its
            edge, `none` keeps what the model made of the background too.
        feather: pixels.
        match_colour: when compositing, first match colours on the ring around the mask.
        mask_rule: see `ldm.utils.mask.parse_mask`.
        rounding: of the pictures to 8 bits, `round` or `truncate`.
    """

    crop: str
    composite: str
    feather: int
    match_colour: bool
    mask_rule: str
    rounding: str


@dataclass(frozen=True)
class EditSettings(Sampling, Compositing):
    """Everything about an edit by example but its pictures.

    Args:
        exemplar_fit: `stretch` the exemplar to the encoder's square (as in training), `crop` its middle, or `original`:
            stretched, with transparency ignored and values rounded to float16, as the original's script does.
    """

    exemplar_fit: str


@dataclass(frozen=True)
class PixelSampling(Drawing):
    """How samples of a model of pictures are drawn.

    Args:
        sampler: one of `ldm.samplers.repaint.REVERSE`.
        classifier_scale: of a classifier's guidance (2105.05233), if there is one.
    """

    classifier_scale: float

    def __post_init__(self):
        check_reverse(self.sampler)
        super().__post_init__()


@dataclass(frozen=True)
class RePaintSettings(Drawing, Compositing):
    """Everything about filling a hole by RePaint but the picture and what is told about it.

    Args:
        sampler: of the steps down, one of `ldm.samplers.repaint.REVERSE`.
        steps: of the grid; the original's t_T.
        jump_length, jump_n_sample, n_sample, jump2_length, jump2_n_sample, jump3_length, jump3_n_sample,
            start_resampling: see `ldm.samplers.repaint.jump_schedule`.
        guidance_scale: classifier-free guidance of models that follow a prompt or an exemplar, 1 = none.
        classifier_scale: of a classifier's guidance (2105.05233), if there is one.
    """

    jump_length: int
    jump_n_sample: int
    n_sample: int
    jump2_length: int
    jump2_n_sample: int
    jump3_length: int
    jump3_n_sample: int
    start_resampling: int | None
    guidance_scale: float
    classifier_scale: float

    def __post_init__(self):
        check_reverse(self.sampler)
        super().__post_init__()
        self.times()

    def times(self) -> list[int]:
        """The walk through time, see `jump_schedule`."""
        return jump_schedule(
            self.steps,
            self.jump_length,
            self.jump_n_sample,
            n_sample=self.n_sample,
            jump2_length=self.jump2_length,
            jump2_n_sample=self.jump2_n_sample,
            jump3_length=self.jump3_length,
            jump3_n_sample=self.jump3_n_sample,
            start_resampling=self.start_resampling,
        )

    def calls(self) -> int:
        """Network calls for one picture; with guidance each is a batch of two."""
        return network_calls(self.times())


@dataclass(frozen=True)
class MaskInference(Settings):
    """How a mask is inferred.

    Args:
        n_maps: noises over which the mask's map is averaged.
        strength: noise level of the map, as a share of the schedule's timesteps, in (0, 1].
        threshold: where the map, scaled to [0, 1], is above it, the picture is edited; in (0, 1).
        clamp: values of the map are cut at so many times its mean.
        seed: of the map's noises.
    """

    n_maps: int
    strength: float
    threshold: float
    clamp: float
    seed: int

    def __post_init__(self):
        super().__post_init__()
        if not self.clamp > 0:
            raise UserError(f"clamp {self.clamp:g}: expected more than 0")


@dataclass(frozen=True)
class Encoding(Settings):
    """How far a picture is encoded.

    Args:
        steps: of the DDIM grid; only its lowest `encode_ratio` is visited, up by the inversion and down by the edit.
        encode_ratio: how far up the picture is encoded, in (0, 1]: the more, the freer is the edit.
        refine: fixed-point iterations in each step of the inversion, for a closer round trip; each is one more
            evaluation of the network.
    """

    steps: int
    encode_ratio: float
    refine: int

    def __post_init__(self):
        super().__post_init__()
        encoded_steps(self.encode_ratio, self.steps)


@dataclass(frozen=True)
class DiffEditSettings(Compositing, MaskInference, Encoding):
    """Everything about a DiffEdit but its picture and its prompts.

    Args:
        guidance_scale: classifier-free guidance of the edit, 1 = none. The inversion has none.
        seed: of the map's noises; all else is deterministic.
    """

    guidance_scale: float

    def evaluations(self, mask: bool) -> int:
        """Network evaluations for one picture; `mask`: it is inferred, not given.

        2 for each map; for each step upwards 1, and 1 for each refinement; for each step down 2, or 1 without guidance.
        """
        up, down = 1 + self.refine, 1 if self.guidance_scale == 1 else 2
        return 2 * self.n_maps * mask + encoded_steps(self.encode_ratio, self.steps) * (up + down)


def encoded_steps(ratio: float, steps: int) -> int:
    """How many of the grid's timesteps an encoding to `ratio` visits.

    Raises:
        UserError: none.
    """
    visited = round(ratio * steps)
    if visited < 1:
        raise UserError(f"encode_ratio {ratio:g} of {steps} steps: is no step, expected {1 / steps:g} or more")
    return visited


def check_reverse(sampler: str) -> None:
    if sampler not in REVERSE:
        raise UserError(f"sampler {sampler!r}: expected one of {', '.join(REVERSE)}")


def _check(name: str, value: Any, kind: type) -> None:
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{name} {value!r}: expected {getattr(kind, '__name__', kind)}")
    if name in CHOICES and value not in CHOICES[name]:
        raise UserError(f"{name} {value!r}: expected one of {', '.join(CHOICES[name])}")
    if name in AT_LEAST and value < AT_LEAST[name]:
        raise UserError(f"{name} {value}: expected {AT_LEAST[name]} or more")
    if name in AT_MOST and value > AT_MOST[name]:
        raise UserError(f"{name} {value}: expected {AT_MOST[name]} or less")
    if name in SHARES and not (0 < value < 1 or (value == 1 and SHARES[name] == "at most")):
        raise UserError(f"{name} {value:g}: expected more than 0 and {SHARES[name]} 1")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} {value}: expected a finite number")
