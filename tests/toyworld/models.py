"""A tiny text model that can read ToyWorld's captions."""

from copy import deepcopy
from functools import cache
from typing import Any

from ldm.config import build
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.toyworld.render import VOCABULARY
from tests.golden_weights import fill
from tests.tiny import TEXT_CONFIG

LENGTH = 24


def _config() -> dict[str, Any]:
    config = deepcopy(TEXT_CONFIG)
    encoder = config["params"]["conditioner"]["params"]["encoder"]["params"]
    encoder |= {"vocab_size": len(VOCABULARY) + 2, "context_length": LENGTH}
    encoder["tokenizer"]["params"] = {"words": VOCABULARY, "context_length": LENGTH}
    return config


CAPTION_CONFIG = _config()


@cache
def tiny_caption_model() -> LatentDiffusion:
    """Sides of its pictures are multiples of 8; shared by the tests, which do not change it."""
    return fill(build(CAPTION_CONFIG))
