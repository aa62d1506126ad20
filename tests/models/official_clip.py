"""Synthetic weights of the official checkpoints, whose CLIP has Hugging Face names, in our conditioners."""

import torch
from torch import nn

from ldm.checkpoints.keymaps import official
from tests.golden_weights import make


def fill_official(conditioner: nn.Module) -> nn.Module:
    """Assign every tensor of a conditioner (on the meta device, say) from its official key or keys (q, k and v)."""
    weights = {}
    for name, tensor in conditioner.state_dict().items():
        keys = official("conditioner." + name)
        rows, *rest = tensor.shape
        weights[name] = torch.cat([make(key, (rows // len(keys), *rest)) for key in keys])
    conditioner.load_state_dict(weights, assign=True)
    return conditioner.eval()
