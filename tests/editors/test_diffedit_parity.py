"""DiffEdit against diffusers' `StableDiffusionDiffEditPipeline`: the same weights, latents, noise and timesteps.

Both are given latents and contexts. Where theirs departs from the paper the test says how, and shows that nothing else
is between the two.
"""

import diffusers
import pytest
import torch

from ldm.diffusion.schedule import Schedule
from ldm.editors.diffedit import DiffEdit, Inversion
from ldm.editors.mask_inference import difference_map
from ldm.models.clip_text import ClipTextEncoder, TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.tokenizer import WordTokenizer
from ldm.presets import DiffEditSettings
from tests.editors import diffusers_peers as peers
from tests.golden_weights import fill
from tests.tiny import WORDS

HEIGHT, WIDTH, S, RATIO, SCALE = 64, 96, 10, 0.8, 3.0
SOURCE, TARGET, NEGATIVE = "a red ball", "a blue mug", "a ball"


@pytest.fixture(scope="module")
def editor():
    words = WordTokenizer(WORDS, 8)
    encoder = ClipTextEncoder(words.vocab_size, words.context_length, peers.CONTEXT, 2, 2, words)
    model = LatentDiffusion(
        peers.our_unet(4),
        peers.our_vae(),
        TextConditioner(encoder),
        Schedule.scaled_linear(),
        peers.SCALE_FACTOR,
        image_size=64,
    )
    return DiffEdit(fill(model).requires_grad_(False), DiffEditSettings.read())


@pytest.fixture(scope="module")
def pipeline(editor):
    model = editor.model
    weights = {name: t for name, t in peers.official_weights(model).items() if not name.startswith("cond_stage_model.")}
    unet = peers.their_unet(weights, 4).eval()
    unet.register_to_config(sample_size=64)  # the pipeline wants to know it
    pipeline = diffusers.StableDiffusionDiffEditPipeline(
        vae=peers.their_vae(weights).eval(),
        unet=unet,
        text_encoder=None,
        tokenizer=None,
        scheduler=peers.SCHEDULERS["ddim"](),
        inverse_scheduler=diffusers.DDIMInverseScheduler(**peers.LATENT_DIFFUSION, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def z():
    return torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inversion(editor, z):
    """Of a picture, with z for its latent."""
    editor.encode = lambda image: z
    return editor.invert(torch.zeros(1, 3, HEIGHT, WIDTH), encode_ratio=RATIO, steps=S)


def contexts(editor, **prompts):
    return {name: editor.model.conditioner([prompt]) for name, prompt in prompts.items()}


def test_inversion(editor, pipeline, z, inversion):
    """Theirs without guidance, `guidance_scale=1`; it is 7.5 by default, which cannot be undone."""
    theirs = pipeline.invert(
        image=z,
        num_inference_steps=S,
        inpaint_strength=RATIO,
        guidance_scale=1.0,
        **contexts(editor, prompt_embeds="", negative_prompt_embeds=""),
    ).latents
    ours = torch.stack([inversion.latents[t] for t in inversion.timesteps.tolist()], dim=1)
    assert theirs.shape == ours.shape == (1, 8, *z.shape[1:])
    assert (ours - theirs).abs().max() < 3e-5 * theirs.abs().max()


def test_mask(editor, pipeline, z):
    """Theirs is guided, and swaps the positive and negative prompts. With one negative for both, and the scale 2, eps
    differs by -1 times what it does without guidance. It divides by the limit, not by the maximum: the same where the
    limit is reached, and otherwise a higher threshold."""
    n = 3
    mask = pipeline.generate_mask(
        image=z,
        num_maps_per_mask=n,
        mask_encode_strength=0.5,
        mask_thresholding_ratio=1.5,
        num_inference_steps=S,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(1),
        **contexts(
            editor,
            target_prompt_embeds=TARGET,
            target_negative_prompt_embeds=NEGATIVE,
            source_prompt_embeds=SOURCE,
            source_negative_prompt_embeds=NEGATIVE,
        ),
    )
    t = int(pipeline.scheduler.timesteps[S // 2])
    noise = torch.randn(n, *z.shape[1:], generator=torch.Generator().manual_seed(1))
    prompts = contexts(editor, reference=SOURCE, query=TARGET)
    schedule = editor.model.schedule
    difference = difference_map(editor._denoise, z, **prompts, t=t, schedule=schedule, noises=noise[:, None])
    assert difference.max() > 1.5 * difference.mean()
    ours = (difference / difference.mean() / 1.5).clamp(max=1)[0, 0]  # which does not take the lowest for 0
    clear = (ours - 0.5).abs() > 1e-4
    assert 0 < mask.sum() < mask.size and clear.float().mean() > 0.95
    assert torch.equal(torch.from_numpy(mask[0])[clear] > 0, (ours > 0.5)[clear])


def test_masked_decode(editor, pipeline, z, inversion):
    """Theirs lays in after the step to a timestep what was recorded at the one before: given records that are moved by
    a level, ours does the same. As they are, ours ends with the picture's own latent, theirs does not."""
    inside = torch.zeros(1, 1, *z.shape[-2:])
    inside[..., 2:6, 3:] = 1
    times = inversion.timesteps.tolist()
    theirs = pipeline(
        mask_image=inside.clone(),
        image_latents=torch.stack([inversion.latents[t] for t in times], dim=1),
        inpaint_strength=RATIO,
        num_inference_steps=S,
        guidance_scale=SCALE,
        output_type="latent",
        **contexts(editor, prompt_embeds=TARGET, negative_prompt_embeds=NEGATIVE),
    ).images

    moved = {after: inversion.latents[t] for t, after in zip(times, [*times[1:], 0], strict=True)}
    moved[times[0]] = inversion.latents[times[0]]
    noisier = Inversion(moved, inversion.timesteps, inversion.context)
    same = editor.edit(noisier, inside, [TARGET], NEGATIVE, guidance_scale=SCALE)
    assert (same - theirs).abs().max() < 3e-5 * theirs.abs().max()

    ours = editor.edit(inversion, inside, [TARGET], NEGATIVE, guidance_scale=SCALE)
    outside = (inside == 0).expand_as(z)
    assert torch.equal(ours[outside], z[outside])
    assert (theirs - z)[outside].abs().max() > 1e-3
    assert (ours - theirs).abs().max() > 1e-3
