"""Complete models that run in milliseconds, by example and by text: as configs, and built with synthetic weights."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from ldm.checkpoints.io import save_tensors
from ldm.checkpoints.open import load
from ldm.config import build
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.toyworld.judge import Judge
from tests.golden_weights import fill

CONFIG: dict[str, Any] = {
    "target": "ldm.models.latent_diffusion.LatentDiffusion",
    "params": {
        "unet": {
            "target": "ldm.models.unet.UNet",
            "params": {
                "in_channels": 9,
                "out_channels": 4,
                "model_channels": 32,
                "channel_mult": [1, 1],
                "num_res_blocks": 1,
                "attention_resolutions": [2],
                "num_heads": 2,
                "context_dim": 16,
            },
        },
        "autoencoder": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "z_channels": 4, "embed_dim": 4},
        },
        "conditioner": {
            "target": "ldm.models.clip_image.ExemplarConditioner",
            "params": {
                "encoder": {
                    "target": "ldm.models.clip_image.ClipImageEncoder",
                    "params": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
                },
                "context_dim": 16,
                "mapper_layers": 1,
            },
        },
        "schedule": {"target": "ldm.diffusion.schedule.Schedule.scaled_linear"},
        "scale_factor": 0.5,
        "image_size": 64,
    },
}

WORDS = ["a", "and", "ball", "blue", "mug", "red"]

TEXT_CONFIG: dict[str, Any] = {
    "target": CONFIG["target"],
    "params": {
        **CONFIG["params"],
        "unet": {**CONFIG["params"]["unet"], "params": {**CONFIG["params"]["unet"]["params"], "in_channels": 4}},
        "conditioner": {
            "target": "ldm.models.clip_text.TextConditioner",
            "params": {
                "encoder": {
                    "target": "ldm.models.clip_text.ClipTextEncoder",
                    "params": {
                        "vocab_size": len(WORDS) + 2,
                        "context_length": 9,
                        "width": 16,
                        "layers": 1,
                        "heads": 2,
                        "tokenizer": {
                            "target": "ldm.models.tokenizer.WordTokenizer",
                            "params": {"words": WORDS, "context_length": 9},
                        },
                    },
                },
            },
        },
    },
}


@cache
def tiny_model() -> LatentDiffusion:
    """Sides of its pictures are multiples of 8; shared by the tests, which do not change it."""
    return fill(build(CONFIG))


@cache
def tiny_text_model() -> LatentDiffusion:
    """The same, from prompts; its tokenizer knows `WORDS`."""
    return fill(build(TEXT_CONFIG))


def write_model(
    folder: Path, config: Mapping[str, Any] | None = None, weights: Mapping[str, Tensor] | None = None
) -> tuple[Path, Path]:
    """Write a config and its weights, those of the tiny model if none are given; returns both paths."""
    paths = folder / "tiny.yaml", folder / "tiny.safetensors"
    OmegaConf.save(config or {"model": CONFIG}, paths[0])
    save_tensors(paths[1], weights or tiny_model().state_dict())
    return paths


@cache
def shipped_judge() -> Judge:
    """The judge of ToyWorld edits, with the weights that ship."""
    return load("toyworld_judge", device="cpu", root="judge")
