import copy

import diffusers
import numpy as np
import pytest
import torch
import transformers

import ldm
from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.editors import text_to_image as editing
from ldm.editors.text_to_image import TextToImage
from ldm.models.clip_text import ClipTextEncoder, TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.tokenizer import WordTokenizer
from ldm.presets import Sampling
from ldm.samplers import SAMPLERS
from ldm.utils.random import NoiseSource
from tests.editors import diffusers_peers as peers
from tests.golden_weights import fill
from tests.refusals import assert_line, refused
from tests.tiny import tiny_model, tiny_text_model

FAST = {"steps": 2, "n_samples": 1}


def make(prompts="a red ball", negative="", model=None, size=(16, 24), **changes):
    editor = TextToImage(model or tiny_text_model(), **FAST)
    return editor(prompts, negative, height=size[0], width=size[1], **changes)


def arrays(result):
    return [np.asarray(picture).astype(int) for picture in result.images]


# sizes


@pytest.mark.parametrize("size", [(48, 64), (333, 257), (65, 64), (1, 1), (7, 40)])
def test_any_size_comes_out_exactly(size):
    (picture,) = make(size=size, steps=1).images
    assert (picture.height, picture.width, picture.mode) == (*size, "RGB")


def test_another_size_is_the_middle_of_the_next_multiple():
    (whole,), (part,) = arrays(make(size=(24, 32))), arrays(make(size=(19, 27)))
    assert np.array_equal(part, whole[2:21, 2:29])


def test_the_size_is_by_default_the_models():
    (picture,) = ldm.TextToImage(tiny_text_model(), **FAST)("a ball", height=8).images
    assert picture.size == (64, 8)


# samples


@pytest.mark.parametrize(
    "sampler, eta", [("ddim", 0.0), ("ddim", 1.0), ("plms", 0.0), ("dpm_solver", 0.0), ("ddpm", 0)]
)
def test_a_batch_is_its_samples(sampler, eta):
    prompts = ["a red ball", "a mug and a blue ball"]
    batch = make(prompts, "a mug", n_samples=2, seed=11, sampler=sampler, eta=float(eta))
    assert batch.prompts == [prompts[0], prompts[0], prompts[1], prompts[1]]
    assert batch.seeds == [11, 12, 11, 12]
    for prompt, seed, picture in zip(batch.prompts, batch.seeds, arrays(batch), strict=True):
        (single,) = arrays(make(prompt, "a mug", seed=seed, sampler=sampler, eta=float(eta)))
        assert np.abs(picture - single).max() <= 1
    pairs = [(0, 1), (0, 2), (1, 3)]
    assert all(np.abs(arrays(batch)[i] - arrays(batch)[j]).max() > 10 for i, j in pairs)


def test_each_sample_has_a_generator_of_its_own(monkeypatch):
    """Bit for bit: the start of sample 1 and the noise of its steps, in a batch."""
    draws = []

    class Recorder(NoiseSource):
        def randn(self, *shape):
            draws.append(super().randn(*shape))
            return draws[-1]

    monkeypatch.setattr(editing, "NoiseSource", Recorder)
    make(["a ball", "a mug"], n_samples=2, seed=5, eta=1.0, steps=3)
    own = torch.Generator().manual_seed(6)
    assert len(draws) == 1 + 3
    for noise in draws:
        expected = torch.randn(4, 4, 6, generator=own)
        assert torch.equal(noise[1], expected) and torch.equal(noise[3], expected)


def test_given_starts_are_taken_and_the_rest_is_each_samples_own(monkeypatch):
    seen = []

    def sampler(denoise, x, *args, **kwargs):
        seen.append((x, kwargs["noise"](1)))
        return x

    monkeypatch.setitem(SAMPLERS, "plms", sampler)
    make(["a ball", "a mug"], sampler="plms", seed=3, n_samples=2, start_seeds=[8, 9])
    make(["a ball", "a mug"], sampler="plms", seed=3, n_samples=2)
    (x, noise), (own, own_noise) = seen
    for row, seed in enumerate([8, 9, 8, 9]):
        assert torch.equal(x[row], torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(seed)))
    assert not torch.equal(x, own) and torch.equal(noise, own_noise)


def test_prompt_negative_scale_seed_and_steps_all_matter():
    (base,) = arrays(make())
    others = [
        make("a blue ball"),
        make(negative="a mug"),
        make(guidance_scale=3.0),
        make(guidance_scale=1.0),
        make(seed=1),
        make(steps=3),
    ]
    assert all((arrays(other)[0] != base).any() for other in others)


def test_without_guidance_the_negative_prompt_is_said_to_do_nothing(caplog):
    (a,), (b,) = arrays(make(negative="a mug", guidance_scale=1.0)), arrays(make(guidance_scale=1.0))
    assert np.array_equal(a, b)
    (message,) = caplog.messages
    assert_line(message, "a mug", 1)


def test_the_network_is_asked_once_a_step():
    asked = []
    model = tiny_text_model()
    handle = model.unet.register_forward_hook(lambda *call: asked.append(len(call[2])))
    try:
        make(steps=3, n_samples=2)
        make(steps=3, n_samples=2, guidance_scale=1.0)
    finally:
        handle.remove()
    assert asked == [4] * 3 + [2] * 3


def test_progress_is_reported():
    seen = []
    make(steps=4, callback=lambda i, t, x, x0: seen.append((i, tuple(x0.shape))))
    assert seen == [(i, (1, 4, 4, 6)) for i in range(4)]


def test_it_works_in_bfloat16():
    model = copy.deepcopy(tiny_text_model()).bfloat16()
    (half,), (full,) = arrays(make(model=model)), arrays(make())
    assert 0 < np.abs(half - full).mean() < 8


# bad input


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({"steps": 0}, ("steps", 0)),
        ({"steps": 1001}, ("steps", 1001, 1000)),
        ({"sampler": "euler"}, ("sampler", "euler", "ddim", "ddpm", "dpm_solver", "plms")),
        ({"sampler": "plms", "eta": 0.5}, ("eta", 0.5, "ddim")),
        ({"n_samples": 0}, ("n_samples", 0)),
        ({"size": (0, 8)}, ("height", 0)),
        ({"size": (8, -1)}, ("width", -1)),
        ({"prompts": []}, "prompts"),
        ({"prompts": "a green ball"}, ("a green ball", "green")),
        ({"negative": "a tree"}, ("a tree", "tree")),
        ({"prompts": "a " * 8}, ("a a", 8, 7)),
    ],
)
def test_wrong_arguments_are_named(changes, wanted):
    with refused(wanted):
        make(**changes)


def test_a_picture_much_larger_than_the_model_is_said_so(caplog):
    make(size=(8, 130), steps=1)
    (message,) = caplog.messages
    assert_line(message, "130x8", 64)


def test_weights_that_are_damaged_are_not_shown_as_colours():
    model = copy.deepcopy(tiny_text_model())
    model.unet.out[-1].bias.data.fill_(torch.nan)
    with refused():
        make(model=model)


def test_a_model_of_another_kind_is_refused():
    settings = Sampling.read()
    with refused("UNet", 9, 4):
        TextToImage(tiny_model(), settings)
    by_example = copy.copy(tiny_text_model())
    by_example._modules = {**by_example._modules, "conditioner": tiny_model().conditioner}
    with refused("ExemplarConditioner"):
        TextToImage(by_example, settings)


# against diffusers' StableDiffusionPipeline: the same weights, prompts, timesteps and generator

BATCH, HEIGHT, WIDTH, LENGTH = 2, 64, 96, 7
LAYERS = 2


@pytest.fixture(scope="module")
def model():
    tokenizer = WordTokenizer(["a", "red", "ball", "blue", "mug"], LENGTH)
    encoder = ClipTextEncoder(7, LENGTH, peers.CONTEXT, LAYERS, heads=2, tokenizer=tokenizer)
    model = LatentDiffusion(
        unet=peers.our_unet(4),
        autoencoder=peers.our_vae(),
        conditioner=TextConditioner(encoder),
        schedule=Schedule.scaled_linear(),
        scale_factor=peers.SCALE_FACTOR,
        image_size=64,
    )
    return fill(model)


@pytest.fixture(scope="module")
def components(model):
    weights = peers.official_weights(model)
    components = {
        "unet": peers.their_unet(weights, 4),
        "vae": peers.their_vae(weights),
        "text_encoder": their_encoder(weights),
    }
    return peers.checked(components, model)


def their_encoder(weights):
    config = transformers.CLIPTextConfig(
        vocab_size=7,
        hidden_size=peers.CONTEXT,
        intermediate_size=4 * peers.CONTEXT,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
    )
    encoder = transformers.CLIPTextModel(config)
    root = "cond_stage_model.transformer."
    ours = {name.removeprefix(root): tensor for name, tensor in weights.items() if name.startswith(root)}
    if not any(name.startswith("text_model.") for name in encoder.state_dict()):  # since transformers 5
        ours = {name.removeprefix("text_model."): tensor for name, tensor in ours.items()}
    encoder.load_state_dict(ours)
    return encoder


CASES = [("ddim", 10, 0.0), ("ddim", 10, 1.0), ("plms", 10, 0.0), ("plms", 20, 0.0)]


@pytest.mark.parametrize("negative", ["", "a blue mug"])
@pytest.mark.parametrize("sampler, S, eta", CASES)
def test_whole_pictures_are_those_of_diffusers(model, components, sampler, S, eta, negative):
    pipeline = diffusers.StableDiffusionPipeline(
        **components,
        tokenizer=None,
        scheduler=peers.SCHEDULERS[sampler](),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a red ball", "a mug"]
    read = model.conditioner.encoder.tokenizer
    encode = components["text_encoder"]
    with torch.no_grad():
        expected = pipeline(
            prompt_embeds=encode(read(prompts))[0],
            negative_prompt_embeds=encode(read([negative] * BATCH))[0],
            height=HEIGHT,
            width=WIDTH,
            num_inference_steps=S,
            guidance_scale=7.5,
            eta=eta,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        ).images
    timesteps = pipeline.scheduler.timesteps.unique().flip(0)  # theirs for PLMS repeat one, for its second call
    assert timesteps.tolist() == sampling_timesteps(S).tolist()

    editor = TextToImage(model, Sampling.read(sampler=sampler, steps=S, eta=eta, guidance_scale=7.5))
    z = editor.sample(prompts, negative, (HEIGHT, WIDTH), peers.Noise(BATCH, 1), editor.settings)
    assert (z - expected).abs().max() < 3e-5 * expected.abs().max()
    with torch.no_grad():
        picture = pipeline.vae.decode(expected / peers.SCALE_FACTOR).sample
    assert (editor.decode(z) - picture).abs().max() < 1e-4
