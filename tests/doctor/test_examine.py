"""The doctor on a good model and on changes to it."""

import pytest
import torch

from ldm.checkpoints.io import save_tensors
from ldm.doctor import examine as room
from ldm.doctor.networks import HOLE, KEEP
from ldm.doctor.report import verdict
from ldm.doctor.weights import MASK_FIRST, MASK_LAST
from ldm.toyworld.render import render_scene

CONV, BIAS = "unet.input_blocks.0.0.weight", "unet.input_blocks.0.0.bias"
MASK = 8


def pictures(side):
    return torch.stack([torch.from_numpy(render_scene(i, side).image) for i in range(2)]).movedim(-1, 1) / 127.5 - 1


def examine(path, tensors):
    save_tensors(path / "changed.safetensors", tensors)
    findings = room.examine([path / "changed.safetensors"], "toyworld", torch.device("cpu"), pictures)
    return {finding.label: finding for finding in findings}, verdict(findings)


def turned(tensors):
    """The same network for a mask of the other polarity (up to the border, which is padded with zeros)."""
    weight = tensors[CONV].clone()
    weight[:, MASK] *= -1
    return {**tensors, CONV: weight, BIAS: tensors[BIAS] - weight[:, MASK].sum((1, 2))}


def test_the_shipped_model_is_fine(tmp_path, toyworld):
    found, (line, fine) = examine(tmp_path, toyworld)
    assert fine and line == "verdict: fine: config toyworld"
    assert MASK_LAST in found["input"].text and "mask 1 = keep" in found["input"].text
    assert [row.split()[:2] for row in found["precision"].table[1:]] == [
        ["CLIP", "encode"], ["VAE", "encode"], ["VAE", "decode"], ["UNet", "step"]
    ]  # fmt: skip
    assert all(row.split()[2] == "ok" for row in found["precision"].table[1:])


@pytest.mark.parametrize(
    "order, polarity", [(MASK_FIRST, "1 = keep"), (MASK_LAST, "1 = hole"), (MASK_FIRST, "1 = hole")]
)
def test_order_and_polarity_are_found_by_trial(tmp_path, toyworld, fp32_only, order, polarity):
    changed = turned(toyworld) if polarity == "1 = hole" else dict(toyworld)
    if order == MASK_FIRST:
        changed[CONV] = changed[CONV][:, [0, 1, 2, 3, MASK, 4, 5, 6, 7]]
    found, (line, fine) = examine(tmp_path, changed)
    assert not fine and line == f"verdict: broken: input channels are {order}, mask {polarity}"
    assert found["denoising"].status == "ok"


def test_order_and_polarity_are_left_open_below_a_margin():
    """A tenth is no margin: the polarity, or both, cannot be told."""
    weight = torch.ones(8, 9, 3, 3)
    right, turned_, first, both = ((MASK_LAST, KEEP), (MASK_LAST, HOLE), (MASK_FIRST, HOLE), (MASK_FIRST, KEEP))
    for errors, expected in (
        ((0.10, 0.20, 0.30, 0.40), (MASK_LAST, KEEP)),
        ((0.30, 0.20, 0.10, 0.40), (MASK_FIRST, HOLE)),
        ((0.10, 0.11, 0.30, 0.40), (MASK_LAST, None)),
        ((0.10, 0.20, 0.11, 0.40), (None, None)),
    ):
        assert room.layout(weight, dict(zip((right, turned_, first, both), errors, strict=True)))[0] == expected


def test_overflow_is_named_with_what_to_use(tmp_path, toyworld):
    tensors = {name: tensor for name, tensor in toyworld.items() if name.startswith("autoencoder.")}
    tensors["autoencoder.encoder.conv_in.weight"] = 1e5 * tensors["autoencoder.encoder.conv_in.weight"]
    found, (line, fine) = examine(tmp_path, tensors)
    assert fine and "use fp32 or bf16" in line
    assert "VAE encode overflows in fp16" in found["precision"].text


def test_broken_networks(tmp_path, toyworld, fp32_only):
    generator = torch.Generator().manual_seed(0)
    changed = {
        name: 0.05 * torch.randn(tensor.shape, generator=generator)
        if name.startswith(("unet.", "autoencoder.decoder."))
        else tensor
        for name, tensor in toyworld.items()
    }
    found, (line, _) = examine(tmp_path, changed)
    assert line.startswith("verdict: broken: autoencoder's round trip") and line.endswith("the UNet does not denoise")
    assert found["input"].status == "note"

    changed["unet.out.2.bias"] = torch.full((4,), float("nan"))
    found, (line, _) = examine(tmp_path, changed)
    assert "NaN or inf in UNet step" in line and "1 (unet.out.2.bias)" in found["weights"].text


def test_a_stage_answers_for_itself(tmp_path, toyworld, fp32_only):
    bad = torch.full_like(toyworld["autoencoder.encoder.conv_out.bias"], float("nan"))
    found, (line, _) = examine(tmp_path, {**toyworld, "autoencoder.encoder.conv_out.bias": bad})
    outcomes = {row[:14].strip(): row[14:].strip() for row in found["precision"].table[1:]}
    assert outcomes == {"CLIP encode": "ok", "VAE encode": "NaN", "VAE decode": "ok", "UNet step": "ok"}
    assert "NaN or inf in VAE encode" in line


def test_untrained_channels(tmp_path, toyworld, monkeypatch):
    monkeypatch.setattr(room, "available", lambda device: 0)
    weight = toyworld[CONV].clone()
    weight[:, 4:] = 0
    found, (line, fine) = examine(tmp_path, {**toyworld, CONV: weight})
    assert found["networks"].status == "skipped" and "0 bytes available" in found["networks"].text
    assert not fine and "never trained" in line
