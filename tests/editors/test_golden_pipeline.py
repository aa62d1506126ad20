"""The whole edit against a recording of the original's script: PLMS with 10 steps, guidance 5, fp32, 128x128."""

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.checkpoints.keymaps import official
from ldm.diffusion.schedule import Schedule
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.exemplars import exemplar_pixels, fit_exemplar
from ldm.models.autoencoder import AutoencoderKL
from ldm.models.clip_image import ClipImageEncoder, ExemplarConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.unet import UNet
from ldm.presets import EditSettings
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.mask import parse_mask
from tests.golden_weights import load_golden, make


class Replay:
    """The noise of the recording, in its order."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def randn(self, *shape):
        noise = self.draws.pop(0)
        assert noise.shape[1:] == shape
        return noise


@pytest.fixture(scope="module")
def golden():
    return load_golden("pipeline_prepost")


@pytest.fixture(scope="module")
def editor(golden):
    """Paint by Example at the recording's width, every tensor made from its official name."""
    parts = golden["config"]["model"]["params"]
    unet, vae = parts["unet_config"]["params"], parts["first_stage_config"]["params"]["ddconfig"]
    vision = golden["config"]["vision_config"]
    names = (
        "in_channels out_channels model_channels num_res_blocks "
        "attention_resolutions channel_mult num_heads context_dim"
    )
    model = LatentDiffusion(
        unet=UNet(**{name: unet[name] for name in names.split()}),
        autoencoder=AutoencoderKL(vae["ch"], vae["ch_mult"], vae["num_res_blocks"], vae["z_channels"], embed_dim=4),
        conditioner=ExemplarConditioner(
            ClipImageEncoder(
                vision["image_size"],
                vision["patch_size"],
                vision["hidden_size"],
                vision["num_hidden_layers"],
                vision["num_attention_heads"],
            ),
            context_dim=unet["context_dim"],
            mapper_layers=golden["config"]["mapper"]["layers"],
        ),
        schedule=Schedule.scaled_linear(),
        scale_factor=parts["scale_factor"],
        image_size=128,
    )
    model.load_state_dict({name: from_official(name, tensor.shape) for name, tensor in model.state_dict().items()})
    return ExemplarEditor(model.eval(), EditSettings.read("original", sampler="plms", steps=10, guidance_scale=5.0))


def from_official(name, shape):
    sources = official(name)
    return torch.cat([make(source, (shape[0] // len(sources), *shape[1:])) for source in sources])


def picture(golden, name):
    return Image.fromarray(golden[name].numpy())


def test_preparation(golden, editor):
    image = picture(golden, "image_u8")
    assert torch.allclose(to_tensor(image), golden["image_tensor"], atol=1e-6)
    square = fit_exemplar(picture(golden, "reference_u8"), 224, "original")
    assert torch.allclose(exemplar_pixels(square), golden["ref_tensor"], atol=1e-6)
    assert torch.equal(exemplar_pixels(square, float16=True), golden["ref_tensor_fp16_rounded"])
    hole = parse_mask(picture(golden, "mask_u8"), image.size, rule="luma")
    assert torch.equal(1 - hole, golden["mask_full"])
    assert torch.allclose(golden["image_tensor"] * (1 - hole), golden["inpaint_image"], atol=1e-6)
    concat = editor.model.inpainting_channels(golden["image_tensor"], hole, golden["posterior_noise"])
    assert torch.allclose(concat[:, :4], golden["z_inpaint"], atol=3e-5 * golden["z_inpaint"].abs().max())
    assert torch.allclose(concat[:, 4:], golden["mask_latent"], atol=1e-6)


def test_the_edit_ends_in_the_same_latents_and_picture(golden, editor):
    noise = Replay(golden["start_code"], golden["posterior_noise"])
    hole = 1 - golden["mask_full"]
    context = editor.model.conditioner(golden["ref_tensor_fp16_rounded"])
    z = editor.sample(golden["image_tensor"], hole, context, noise, editor.settings)
    assert noise.draws == []
    assert (z - golden["samples"]).abs().max() < 3e-5 * golden["samples"].abs().max()
    decoded = editor.decode(z)
    assert (decoded - golden["decoded"]).abs().max() < 1e-4
    difference = np.asarray(to_pil(decoded[0], "truncate")).astype(int) - golden["result_png_u8"].numpy()
    assert np.abs(difference).max() <= 1  # truncation can fall on either side of a whole number
    assert (difference != 0).mean() < 1e-3


def test_edit_original_is_this_pipeline_from_the_pictures_on(golden, editor, monkeypatch):
    """The same through the public call: every convention of `--edit original` is the recording's."""
    replay = Replay(golden["start_code"], golden["posterior_noise"])
    monkeypatch.setattr("ldm.editors.exemplar.NoiseSource", lambda seeds: replay)
    result = editor(picture(golden, "image_u8"), picture(golden, "mask_u8"), picture(golden, "reference_u8"))
    difference = np.asarray(result.images[0]).astype(int) - golden["result_png_u8"].numpy()
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3
