"""Synthetic weights for parity tests: a tensor follows from its checkpoint key and its shape alone.

The files in `tests/golden` were recorded by running the original codebases on these weights: none need storing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"
COMPUTED_BUFFERS = frozenset(  # a model's own arithmetic, never generated
    "position_ids betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
    "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
    "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 lvlb_weights logvar".split()
)


def is_generated(key: str) -> bool:
    name = key.rpartition(".")[2] if key.endswith("position_ids") else key
    return name not in COMPUTED_BUFFERS


def make(key: str, shape: Iterable[int]) -> Tensor:
    """The float32 tensor of that key: normal numbers seeded by the key's hash, scaled by the kind of parameter."""
    shape = tuple(shape)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    normal = np.random.default_rng(seed).standard_normal(shape)
    parent, name = ["", *key.split(".")][-2:]
    is_table = (
        "embedding" in name + " " + parent
        and len(shape) < 3
        and name != "bias"
        or (parent, name) == ("label_emb", "weight")
    )
    if is_table or not name.endswith(("weight", "bias")):  # embeddings, learnable vectors
        values = 0.05 * normal
    elif name.endswith("bias"):
        values = 0.1 * normal
    elif len(shape) == 1:  # the scale of a norm
        values = 1 + 0.1 * normal
    else:
        values = normal / np.sqrt(float(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def state_dict(shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """{key: shape} -> {key: float32 tensor}, leaving out what a model computes itself."""
    return {key: make(key, shape) for key, shape in shapes.items() if is_generated(key)}


def fill(model: nn.Module, prefix: str = "") -> nn.Module:
    """Give every tensor of the model the weights of its key in the official checkpoint, `prefix` + its name."""
    shapes = {prefix + name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict({key.removeprefix(prefix): value for key, value in state_dict(shapes).items()}, assign=True)
    return model.eval().requires_grad_(False)


def load_golden(name: str) -> dict[str, Any]:
    """The arrays of `tests/golden/<name>.npz` as tensors; `config`, the settings of the recording, as a dict."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {
            key: json.loads(str(arrays[key])) if arrays[key].dtype.kind == "U" else torch.from_numpy(arrays[key])
            for key in arrays.files
        }
