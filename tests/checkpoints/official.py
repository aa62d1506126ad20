"""Small checkpoints in the format of the published ones, and the configs of the models that they are for.

A tensor follows from its official name and its shape (`make`): what a loaded model must hold needs no key map to know.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from tests.golden_weights import make

WIDTH, LAYERS, CONTEXT = 32, 2, 24

UNET = {
    "target": "ldm.models.unet.UNet",
    "params": {
        "in_channels": 9,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": 1,
        "attention_resolutions": [1],
        "channel_mult": [1, 1],
        "num_heads": 2,
        "context_dim": CONTEXT,
    },
}
AUTOENCODER = {
    "target": "ldm.models.autoencoder.AutoencoderKL",
    "params": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 4, "embed_dim": 4},
}
IMAGE_ENCODER = {
    "target": "ldm.models.clip_image.ClipImageEncoder",
    "params": {"image_size": 32, "patch_size": 16, "width": WIDTH, "layers": LAYERS, "heads": 2},
}
EXEMPLAR = {
    "target": "ldm.models.clip_image.ExemplarConditioner",
    "params": {"encoder": IMAGE_ENCODER, "context_dim": CONTEXT, "mapper_layers": 1},
}
TEXT_ENCODER = {
    "target": "ldm.models.clip_text.ClipTextEncoder",
    "params": {
        "vocab_size": 5,
        "context_length": 7,
        "width": CONTEXT,
        "layers": LAYERS,
        "heads": 2,
        "tokenizer": {
            "target": "ldm.models.tokenizer.WordTokenizer",
            "params": {"words": ["red", "green", "blue"], "context_length": 7},
        },
    },
}
TEXT = {"target": "ldm.models.clip_text.TextConditioner", "params": {"encoder": TEXT_ENCODER}}

BUFFERS = (
    "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
    "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
    "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2"
).split()


def model_config(conditioner: dict = EXEMPLAR, in_channels: int = 9) -> DictConfig:
    unet = {**UNET, "params": {**UNET["params"], "in_channels": in_channels}}
    params = {
        "unet": unet,
        "autoencoder": AUTOENCODER,
        "conditioner": conditioner,
        "scale_factor": 0.2,
        "image_size": 32,
    }
    params["schedule"] = {"target": "ldm.diffusion.schedule.Schedule.scaled_linear"}
    return OmegaConf.create({"model": {"target": "ldm.models.latent_diffusion.LatentDiffusion", "params": params}})


def text_config() -> DictConfig:
    return model_config(TEXT, in_channels=4)


def blocks(width: int) -> dict[str, tuple[int, ...]]:
    """Hugging Face's names of CLIP's transformer."""
    shapes = {}
    for i in range(LAYERS):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"encoder.layers.{i}.self_attn.{part}.weight"] = (width, width)
            shapes[f"encoder.layers.{i}.self_attn.{part}.bias"] = (width,)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"encoder.layers.{i}.{norm}.weight"] = (width,)
            shapes[f"encoder.layers.{i}.{norm}.bias"] = (width,)
        shapes[f"encoder.layers.{i}.mlp.fc1.weight"] = (4 * width, width)
        shapes[f"encoder.layers.{i}.mlp.fc1.bias"] = (4 * width,)
        shapes[f"encoder.layers.{i}.mlp.fc2.weight"] = (width, 4 * width)
        shapes[f"encoder.layers.{i}.mlp.fc2.bias"] = (width,)
    return shapes


def vision_shapes() -> dict[str, tuple[int, ...]]:
    """Hugging Face's names of the vision tower, below `vision_model.`; 5 tokens: 2 x 2 patches and the class."""
    shapes = {
        "embeddings.class_embedding": (WIDTH,),
        "embeddings.patch_embedding.weight": (WIDTH, 3, 16, 16),
        "embeddings.position_embedding.weight": (5, WIDTH),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    return shapes | blocks(WIDTH)


def text_shapes() -> dict[str, tuple[int, ...]]:
    return {
        "embeddings.token_embedding.weight": (5, CONTEXT),
        "embeddings.position_embedding.weight": (7, CONTEXT),
        "final_layer_norm.weight": (CONTEXT,),
        "final_layer_norm.bias": (CONTEXT,),
    } | blocks(CONTEXT)


def network_shapes(in_channels: int = 9) -> dict[str, tuple[int, ...]]:
    """The UNet and the autoencoder, whose names are the official ones below their roots."""
    from ldm.checkpoints.load import build_empty

    node = model_config(in_channels=in_channels).model.params
    roots = {"model.diffusion_model.": node.unet, "first_stage_model.": node.autoencoder}
    return {
        root + name: tuple(tensor.shape)
        for root, network in roots.items()
        for name, tensor in build_empty(network).state_dict().items()
    }


def head_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {"learnable_vector": (1, 1, CONTEXT), "proj_out.weight": (CONTEXT, WIDTH), "proj_out.bias": (CONTEXT,)}
    block = "cond_stage_model.mapper.resblocks.0."
    for norm in ("cond_stage_model.final_ln", block + "ln_1", block + "ln_2"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for linear, rows, columns in (
        ("attn.c_qkv", 3 * WIDTH, WIDTH),
        ("attn.c_proj", WIDTH, WIDTH),
        ("mlp.c_fc", 4 * WIDTH, WIDTH),
        ("mlp.c_proj", WIDTH, 4 * WIDTH),
    ):
        shapes |= {f"{block}{linear}.weight": (rows, columns), f"{block}{linear}.bias": (rows,)}
    return shapes


def clip_keys(shapes: dict, tower: str, level: bool, position_ids: bool) -> dict[str, Tensor]:
    """A tower under its official names. The values do not depend on `level`."""
    prefix = "cond_stage_model.transformer." + (f"{tower}_model." if level else "")
    full = f"cond_stage_model.transformer.{tower}_model."
    tensors = {prefix + name: make(full + name, shape) for name, shape in shapes.items()}
    if position_ids:
        tokens = shapes["embeddings.position_embedding.weight"][0]
        tensors[prefix + "embeddings.position_ids"] = torch.arange(tokens)[None]
    return tensors


def paint_by_example(level: bool = True, position_ids: bool = True) -> dict[str, Tensor]:
    """As `model.ckpt`'s state dict, at toy size."""
    tensors = {name: torch.zeros(1000) for name in BUFFERS}
    tensors |= {name: make(name, shape) for name, shape in (head_shapes() | network_shapes()).items()}
    return tensors | clip_keys(vision_shapes(), "vision", level, position_ids)


def stable_diffusion(level: bool = True, position_ids: bool = True) -> dict[str, Tensor]:
    """As `sd-v1-4.ckpt`'s state dict, at toy size, with the two counters that the real file is said to hold."""
    tensors = {name: torch.zeros(1000) for name in BUFFERS}
    tensors |= {name: make(name, shape) for name, shape in network_shapes(in_channels=4).items()}
    tensors |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return tensors | clip_keys(text_shapes(), "text", level, position_ids)


def averages(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with a full set of moving averages, told from the raw weights by their sign."""
    names = [name for name in tensors if name.startswith("model.")]
    return tensors | {"model_ema." + name[len("model.") :].replace(".", ""): -tensors[name] for name in names}


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Write the file as its makers did: safetensors, or a pickle with training objects of a class that is gone."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
        return path
    module = types.ModuleType("vanished_training")
    exec("class Callback:\n    pass\nclass Metrics(dict):\n    pass", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        callback = module.Callback()
        callback.best, callback.folder, callback.self = np.float64(0.25), Path("logs"), callback
        content = {
            "epoch": 39,
            "global_step": np.int64(470000),
            "pytorch-lightning_version": "1.4.2",
            "callbacks": {module.Callback: callback, "metrics": module.Metrics(loss=torch.ones(2)), "set": {1, 2}},
            "hyper_parameters": OmegaConf.create({"lr": 1e-5, "nested": [1, {"a": 2}]}),
            "lr_schedulers": [np.arange(3), torch.device("cpu"), torch.float16, torch.Size([1])],
            "state_dict": tensors,
        }
        torch.save(content, path)
    finally:
        del sys.modules[module.__name__]
    return path
