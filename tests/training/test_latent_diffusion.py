"""What a step and a validation of latent diffusion compute, at toy width."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ldm.config import build
from ldm.diffusion.losses import min_snr_weight
from ldm.models.attention import SpatialTransformer
from ldm.models.clip_text import ClipTextEncoder, TextConditioner
from ldm.models.tokenizer import WordTokenizer
from ldm.training.base import Optimisation
from ldm.training.exemplar import ExemplarTraining, one_token_dead_weights
from ldm.training.latent_diffusion import LatentDiffusionTraining, TextTraining
from ldm.utils.random import generator
from tests.golden_weights import fill
from tests.refusals import refused
from tests.tiny import CONFIG

OPTIMISATION = Optimisation(learning_rate=1e-3, weight_decay=0.0, warmup_steps=0, cooldown=0.0, seed=4)


def model(prediction: str = "eps", **changes):
    """The tiny model, with trainable synthetic weights, and other parts if given."""
    unet = {**CONFIG["params"]["unet"]["params"], **changes.pop("unet", {})}
    parts = {"unet": {"target": "ldm.models.unet.UNet", "params": unet}, "prediction": prediction, **changes}
    return fill(build({**CONFIG, "params": {**CONFIG["params"], **parts}})).requires_grad_(True)


def attach(training, accumulate=1, loaded_at_once=4, world_size=1, rank=0, step=7, validation=10):
    """What Lightning would tell the training about the run."""
    data = SimpleNamespace(loaded_at_once=loaded_at_once, validation=range(validation))
    training.logged = {}
    training.log_dict = lambda values, **_: training.logged.update(values)
    training.log = lambda name, value, **_: training.logged.update({name: value})
    training.trainer = SimpleNamespace(
        accumulate_grad_batches=accumulate, datamodule=data, log_every_n_steps=1,
        world_size=world_size, global_rank=rank, global_step=step,
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
    )  # fmt: skip
    return training


def pictures(n: int) -> dict[str, Tensor]:
    draw = generator("pictures")
    return {
        "image": torch.rand(n, 3, 64, 64, generator=draw) * 2 - 1,
        "mask": (torch.rand(n, 1, 64, 64, generator=draw) < 0.5).float(),
        "exemplar": torch.randn(n, 3, 32, 32, generator=draw),
    }


def rows(batch: dict, some) -> dict:
    return {name: value[some] for name, value in batch.items()}


def exemplar_training(**options) -> ExemplarTraining:
    return attach(ExemplarTraining(model(options.pop("prediction", "eps")), OPTIMISATION, 0.4, **options))


def test_draws_do_not_depend_on_how_the_batch_is_divided():
    training = exemplar_training()

    def drawn(batch_index, n):
        noise = training.draws(batch_index, n)
        return torch.cat([noise.randn(3), noise.rand()[:, None], noise.randint(1000)[:, None].float()], 1)

    whole = drawn(0, 4)
    assert len(whole.unique(dim=0)) == 4 and torch.equal(drawn(1, 4), whole)  # the next batch is the next step's
    attach(training, accumulate=2, loaded_at_once=1, world_size=2, rank=0)
    first = drawn(0, 1), drawn(1, 1)
    attach(training, accumulate=2, loaded_at_once=1, world_size=2, rank=1)
    second = drawn(2, 1), drawn(3, 1)
    assert torch.equal(torch.cat([first[0], second[0], first[1], second[1]]), whole)
    attach(training, step=8)
    assert not (drawn(0, 4) == whole).all(1).any()


def test_a_step_is_the_mean_of_its_samples_losses():
    training, batch = exemplar_training(min_snr_gamma=5.0), pictures(4)
    noise = training.draws(0, 4)
    t, drop = noise.randint(1000), noise.rand() < 0.4
    losses = training.loss(batch, t, drop, noise)
    expected = (losses * min_snr_weight(training.alpha_cumprod(t), 5.0, "eps")).mean()
    torch.testing.assert_close(training.training_step(batch, 0), expected)
    torch.testing.assert_close(training.logged["train/loss"], expected.detach())
    attach(training, accumulate=4, loaded_at_once=1)
    alone = [training.training_step(rows(batch, slice(k, k + 1)), k) for k in range(4)]
    torch.testing.assert_close(torch.stack(alone).mean(), expected)
    torch.testing.assert_close(training.logged, {"train/loss": expected.detach()})  # of the whole batch, once


def test_low_precision_networks_leave_the_noise_levels_alone():
    training = exemplar_training().to(torch.bfloat16)
    t = torch.tensor([0, 1, 500])
    assert torch.equal(training.alpha_cumprod(t), training.model.schedule.alphas_cumprod[t].float())


def test_pictures_of_another_size_than_the_models_are_refused():
    training, batch = exemplar_training(), pictures(2)
    batch["image"] = batch["image"][..., :32]
    with refused("64x32", "model.params.image_size", 64):
        training.training_step(batch, 0)


def test_a_dropped_exemplar_is_replaced_for_its_sample_alone():
    training, batch = exemplar_training(), pictures(3)
    context = training.context(batch, torch.tensor([True, False, False]))
    conditioner = training.model.conditioner
    assert torch.equal(context[0], conditioner.learnable_vector[0])
    torch.testing.assert_close(context[1:], conditioner(batch["exemplar"])[1:])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_loss_compares_with_what_the_model_predicts(prediction):
    training, batch = exemplar_training(prediction=prediction), pictures(2)
    seen = {}
    training.model.unet.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], out=output))
    t, drop = torch.tensor([10, 900]), torch.tensor([False, True])
    loss = training.loss(batch, t, drop, training.draws(0, 2))

    eps, *posteriors = training.draws(0, 2).randn(3, 4, 16, 16).unbind(1)
    a = training.alpha_cumprod(t).view(-1, 1, 1, 1)
    z = training.model.encode(batch["image"], posteriors[0])
    torch.testing.assert_close(seen["x"][:, :4], a.sqrt() * z + (1 - a).sqrt() * eps)
    torch.testing.assert_close(
        seen["x"][:, 4:], training.model.inpainting_channels(batch["image"], batch["mask"], posteriors[1])
    )
    target = eps if prediction == "eps" else a.sqrt() * eps - (1 - a).sqrt() * z
    torch.testing.assert_close(loss, (seen["out"] - target).square().mean((1, 2, 3)))


def test_validation_meets_the_same_noise_in_every_bin_for_ever():
    batch, results = pictures(10), []
    for step, sizes in ((7, (4, 4, 2)), (9, (4, 4, 2)), (9, (5, 5))):
        training = attach(exemplar_training(), step=step, loaded_at_once=sizes[0])
        training.on_validation_epoch_start()
        with torch.no_grad():
            for k, size in enumerate(sizes):
                training.validation_step(rows(batch, slice(k * sizes[0], k * sizes[0] + size)), k)
        assert training.sums[1].tolist() == [1] * 10
        training.on_validation_epoch_end()
        results.append(training.logged)
    assert results[0].keys() == {"val/loss", *(f"val/loss_t{k}00" for k in range(1, 10)), "val/loss_t000"}
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])
    mean = torch.stack([value for name, value in results[0].items() if name != "val/loss"]).mean()
    torch.testing.assert_close(results[0]["val/loss"], mean)


def test_items_that_fill_up_a_batch_do_not_count():
    training, batch = attach(exemplar_training(), validation=3), pictures(4)
    training.on_validation_epoch_start()
    with torch.no_grad():
        training.validation_step(batch, 0)
    assert training.sums[1].tolist() == [1, 1, 1, *[0] * 7]


def test_attention_alone_can_be_trained():
    training = exemplar_training(train="attention")
    unet = training.model.unet
    attention = {id(p) for m in unet.modules() if isinstance(m, SpatialTransformer) for p in m.parameters()}
    first = {id(p) for p in unet.input_blocks[0].parameters()}
    dead = {id(p) for module in one_token_dead_weights(unet) for p in module.parameters()}
    assert {id(p) for p in unet.parameters() if p.requires_grad} == (attention | first) - dead
    assert training.model.conditioner.learnable_vector.requires_grad
    with refused("train", "head", "all", "attention"):
        exemplar_training(train="head")


def test_every_trained_parameter_has_a_gradient_and_no_frozen_one():
    training = exemplar_training()
    training.training_step(pictures(4), 0).backward()
    without = [n for n, p in training.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    dead = {id(p) for module in one_token_dead_weights(training.model.unet) for p in module.parameters()}
    roots = ("model.autoencoder.", "model.conditioner.encoder.")
    for name, parameter in training.named_parameters():
        assert parameter.requires_grad != (name.startswith(roots) or id(parameter) in dead), name


def test_the_panel_shows_the_same_samples_whenever_it_is_drawn():
    training, batch = exemplar_training(panel_steps=2), pictures(2)
    with torch.no_grad():
        first = training.pictures(batch)
        again = attach(training, step=99).pictures(batch)
    assert list(first) == ["image", "masked image", "exemplar", "sample"]
    for name, column in first.items():
        side = 32 if name == "exemplar" else 64
        assert column.shape == (2, 3, side, side) and column.abs().max() <= 1, name
        assert torch.equal(column, again[name])
    assert training.pictures({"z": torch.zeros(2, 4, 16, 16)}) == {}


def test_an_unconditional_model_trains():
    plain = model(unet={"in_channels": 4, "context_dim": None, "num_heads": 2}, conditioner=None)
    training = attach(LatentDiffusionTraining(plain, OPTIMISATION, panel_steps=2))
    training.training_step({"image": pictures(4)["image"]}, 0).backward()
    assert all(p.grad is not None for p in plain.unet.parameters())
    assert training.pictures({"image": pictures(2)["image"]})["sample"].shape == (2, 3, 64, 64)


def text_training() -> TextTraining:
    tokenizer = WordTokenizer(["red", "ball"], context_length=4)
    encoder = ClipTextEncoder(
        vocab_size=tokenizer.vocab_size, context_length=4, width=16, layers=1, heads=2, tokenizer=tokenizer
    )
    text = model(unet={"in_channels": 4}, conditioner=TextConditioner(encoder))
    return attach(TextTraining(text, OPTIMISATION, uncond_probability=0.1, panel_steps=2))


def test_a_text_model_trains_and_drops_captions():
    training = text_training()
    text = training.model
    batch = {"image": pictures(2)["image"], "caption": ["red ball", "ball"]}
    context = training.context(batch, torch.tensor([True, False]))
    torch.testing.assert_close(context, text.conditioner(["", "ball"]))
    training.training_step(batch, 0).backward()
    assert all(p.grad is not None for p in text.unet.parameters())
    assert not any(p.requires_grad for p in text.conditioner.parameters())
    assert list(training.pictures(batch)) == ["image", "sample"]
    assert training.pictures({"z": torch.zeros(2, 4, 16, 16)}) == {}


@pytest.mark.parametrize("kind", ["text", "exemplar"])
@torch.no_grad()
def test_what_the_frozen_networks_made_of_a_batch_trains_as_the_batch_itself(kind):
    training, batch = {"text": text_training, "exemplar": exemplar_training}[kind](), pictures(3)
    batch["caption"] = ["red ball", "ball", "red"]
    noise = training.draws(0, 3).randn(1 + training.posteriors, 4, 16, 16)[:, 1:]
    cached = training.frozen_outputs(batch, noise)
    assert not cached.keys() & batch.keys()
    t, drop = torch.tensor([3, 300, 900]), torch.tensor([False, True, False])
    expected, found = (training.loss(b, t, drop, training.draws(0, 3)) for b in (batch, cached))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    context = training.context(batch, drop)
    torch.testing.assert_close(training.context(cached, drop), context, rtol=0, atol=1e-6)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in cached.items()}
    torch.testing.assert_close(training.loss(halves, t, drop, training.draws(0, 3)), expected, rtol=5e-3, atol=0)
    if kind == "text":
        assert cached["ids"].dtype == torch.int64  # float16 could not tell 49,408 tokens apart
        assert not torch.allclose(context[0], context[1])
        torch.testing.assert_close(context[1], training.model.conditioner([""])[0])
