"""The latent cache holds what the frozen networks make of the training items, and nothing of another source."""

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate

from ldm.config import build
from ldm.training.latent_cache import write_cache
from ldm.training.loop.start import start
from ldm.utils.random import generator
from tests.refusals import refused
from tests.training.shipped import exemplar_config, text_config


def test_a_cached_item_is_what_the_frozen_networks_make_of_the_source(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    training, source = start(config), build(config.source)
    write_cache(config, tmp_path, epochs=1, shard=12, part=(0, 1))
    cached = build(config.data.params.train)[5]
    item = source[5]
    keep = 1 - item["mask"][:, 2::4, 2::4]  # bilinear between the two middle pixels of four, without antialiasing
    near = (cached["concat"][4:] - keep).abs()
    assert near.max() <= 1 and near.mean() < 0.1
    with torch.no_grad():
        token = training.model.conditioner.encode(item["exemplar"][None])[0]
    torch.testing.assert_close(cached["tokens"].float(), token, atol=0.1, rtol=0.05)  # the cache is made in bf16


def test_a_cache_of_something_else_is_not_kept(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path / "latents", steps=1)

    def write(config, shard=12):
        write_cache(config, tmp_path / "latents", epochs=1, shard=shard, part=(0, 1))

    write(config)
    (shard,) = (tmp_path / "latents").iterdir()
    made = shard.stat().st_mtime_ns
    write(config)
    assert shard.stat().st_mtime_ns == made

    source, scale, tokens, weights = (config.copy() for _ in range(4))
    tokens.model.params.conditioner.params.tokens = "all"
    source.recipe.params.jitter = 0
    scale.model.params.scale_factor *= 2
    other = load_file(frozen[0])
    other["autoencoder.quant_conv.bias"] += 1
    save_file(other, tmp_path / "other.safetensors")
    weights.frozen[0] = str(tmp_path / "other.safetensors")
    for changed in ((config, 6), (source,), (scale,), (tokens,), (weights,)):
        with refused(tmp_path / "latents", "00000.safetensors"):
            write(*changed)
    save_file(load_file(shard), shard)  # nothing says what this one is of
    with refused(tmp_path / "latents", "00000.safetensors"):
        write(config)


def test_a_cached_caption_is_its_tokens_beside_its_picture(frozen, tmp_path):
    config = text_config(frozen, tmp_path, steps=1)
    training, source = start(config), build(config.source)
    write_cache(config, tmp_path, epochs=2, shard=12, part=(0, 1))
    cached = build(config.data.params.train)
    assert len(cached) == 24  # the second dozen is drawn anew
    for epoch in range(2):
        items = default_collate([cached[12 * epoch + i] for i in range(12)])
        assert items.keys() == {"z", "ids"} and items["z"].dtype == torch.float16
        drawn = default_collate([source[12 * epoch + i] for i in range(12)])
        noise = torch.randn(12, 1, 4, 16, 16, generator=generator("latent cache", epoch, 0, 0))
        with torch.no_grad():
            z = training.model.encode(drawn["image"], noise[:, 0])
        torch.testing.assert_close(items["z"].float(), z, atol=0.04 * z.std().item(), rtol=0.02)  # made in bf16
        assert torch.equal(items["ids"], training.tokenizer(drawn["caption"]))
    assert not torch.equal(cached[0]["z"], cached[12]["z"])
