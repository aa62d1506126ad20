"""What can be chosen about an edit. The values live in `configs/edit/*.yaml`, none of them here."""

from dataclasses import dataclass, fields
from typing import Any

from ldm.samplers import SAMPLERS
from ldm.utils.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": tuple(sorted(SAMPLERS)),
    "crop": ("none", "auto"),
    "composite": ("feather", "paste", "none"),
    "exemplar_fit": ("stretch", "crop", "original"),
    "mask_rule": ("any", "luma"),
    "rounding": ("round", "truncate"),
}
AT_LEAST = {"steps": 1, "n_samples": 1, "feather": 0, "seed": 0}
AT_MOST = {"seed": 2**63 - 1}  # a generator takes 64 bits; one is left for the seeds of further samples


@dataclass(frozen=True)
class EditSettings:
    """Everything about an edit but its pictures.

    Args:
        sampler: a key of `ldm.samplers.SAMPLERS`.
        steps: timesteps visited.
        guidance_scale: classifier-free guidance, 1 = none.
        eta: 0 deterministic to 1 ancestral, for `ddim` alone.
        seed: sample k draws all its noise from a generator seeded `seed + k`.
        n_samples: pictures made in one batch.
        crop: `none` edits the picture at its own size; `auto` edits a square around the mask at the model's size.
        composite: `feather` blends into the original over `feather` pixels outside the mask, `paste` cuts hard at its
            edge, `none` keeps what the model made of the background too.
        feather: pixels.
        match_colour: when compositing, first match colours on the ring around the mask.
        exemplar_fit: `stretch` the exemplar to the encoder's square (as in training), `crop` its middle, or `original`:
            stretched, with transparency ignored and values rounded to float16, as the original's script does.
        mask_rule: see `ldm.utils.mask.parse_mask`.
        rounding: of the pictures to 8 bits, `round` or `truncate`.

    Raises:
        UserError: a value is of the wrong type or out of range.
    """

    sampler: str
    steps: int
    guidance_scale: float
    eta: float
    seed: int
    n_samples: int
    crop: str
    composite: str
    feather: int
    match_colour: bool
    exemplar_fit: str
    mask_rule: str
    rounding: str

    def __post_init__(self):
        for field in fields(self):
            _check(field.name, getattr(self, field.name), field.type)
        if self.eta and self.sampler != "ddim":
            raise UserError(f"eta {self.eta}: only the sampler ddim takes it, {self.sampler} has none")


def _check(name: str, value: Any, kind: type) -> None:
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{name} {value!r}: expected {kind.__name__}")
    if name in CHOICES and value not in CHOICES[name]:
        raise UserError(f"{name} {value!r}: expected one of {', '.join(CHOICES[name])}")
    if name in AT_LEAST and value < AT_LEAST[name]:
        raise UserError(f"{name} {value}: expected {AT_LEAST[name]} or more")
    if name in AT_MOST and value > AT_MOST[name]:
        raise UserError(f"{name} {value}: expected {AT_MOST[name]} or less")
