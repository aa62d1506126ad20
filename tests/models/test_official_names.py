"""Names, order and shapes of the networks' tensors are the official checkpoints': a contract."""

import pytest
import torch

from ldm.checkpoints.manifest import read_manifest
from ldm.config import build, load_config


@pytest.mark.parametrize(
    "config, manifest, root",
    [
        ("kl_f8", "paint_by_example", "first_stage_model."),
        ("kl_f8", "sd_v1", "first_stage_model."),
        ("unet_paint_by_example", "paint_by_example", "model.diffusion_model."),
        ("unet_sd_v1", "sd_v1", "model.diffusion_model."),
        ("unet_adm_256", "guided_256", ""),
        ("unet_adm_256_class", "guided_256_class", ""),
        ("classifier_adm_256", "guided_256_classifier", ""),
    ],
)
def test_network_has_the_official_tensors(config, manifest, root):
    with torch.device("meta"):
        network = build(load_config(f"models/{config}"))
    ours = [(root + name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    official = [(key, shape) for key, shape in read_manifest(manifest).items() if key.startswith(root)]
    assert ours == official
    assert len(official) > 200
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
