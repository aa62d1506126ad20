"""Small models of guided-diffusion's kind as configs, and the files that its code would write of them."""

import torch
from omegaconf import DictConfig, OmegaConf

from ldm.checkpoints.load import build_empty
from tests.golden_weights import state_dict

TINY = dict(
    in_channels=3,
    out_channels=6,
    model_channels=32,
    num_res_blocks=1,
    attention_resolutions=[2],
    channel_mult=[1, 2],
    num_classes=None,
    use_scale_shift_norm=True,
    context_dim=None,
    transformer_depth=1,
    resblock_updown=True,
)


def config(**options) -> DictConfig:
    unet = {"target": "ldm.models.unet.UNet", "params": {**TINY, "num_heads": 2, **options}}
    schedule = {"target": "ldm.diffusion.schedule.Schedule.linear"}
    fixed = options.get("out_channels", 6) == unet["params"]["in_channels"]
    params = {"unet": unet, "schedule": schedule, "image_size": 16}
    params["variance"] = "fixed_large" if fixed else "learned_range"
    return OmegaConf.create({"model": {"target": "ldm.models.pixel_diffusion.PixelDiffusion", "params": params}})


def classifier(**options) -> DictConfig:
    params = {name: TINY[name] for name in ("model_channels", "num_res_blocks", "channel_mult")}
    params |= {"image_size": 16, "num_classes": 5, "num_head_channels": 32, "attention_resolutions": [2], **options}
    return OmegaConf.create({"model": {"target": "ldm.models.classifier.Classifier", "params": params}})


def bare(config: DictConfig) -> dict[str, torch.Tensor]:
    """The tensors of guided-diffusion's file of a model."""
    shapes = {name: tensor.shape for name, tensor in build_empty(config.model).state_dict().items()}
    return state_dict({name.removeprefix("unet."): shape for name, shape in shapes.items()})
