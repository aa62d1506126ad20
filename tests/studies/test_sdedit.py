import torch

from ldm.diffusion.process import q_sample
from ldm.editors.diffedit import DiffEdit
from ldm.studies.tradeoff import noised
from tests.toyworld.models import tiny_caption_model


def test_the_same_levels_with_a_noise_of_ones_own():
    model = tiny_caption_model()
    editor = DiffEdit(model)
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=draw) * 2 - 1
    inversion = editor.invert(image, encode_ratio=0.5, steps=6)
    z = editor.encode(image)
    noise = torch.randn(z.shape, generator=draw)
    found = noised(inversion, model.schedule, noise)
    assert list(found.latents) == list(inversion.latents) and torch.equal(found.timesteps, inversion.timesteps)
    assert torch.equal(found.latents[0], z)
    for t in inversion.timesteps.tolist():
        torch.testing.assert_close(found.latents[t], q_sample(z, noise, model.schedule.alphas_cumprod[t].item()))
    everywhere = torch.ones(2, 1, 8, 8)
    edited = editor.edit(found, everywhere, ["a ball", "a mug"])
    assert edited.shape == z.shape and not torch.equal(edited, z)
    assert torch.equal(editor.edit(found, 0 * everywhere, ["a ball", "a mug"]), z)
