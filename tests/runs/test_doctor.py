"""The doctor on files of which all is known: what it names, and what it makes of changes to a good model."""

import dataclasses

import pytest
import torch

from ldm.checkpoints.io import read_tensors, save_tensors
from ldm.checkpoints.manifest import read_manifest
from ldm.checkpoints.surgery import expand_in_channels
from ldm.config import ROOT
from ldm.data.toyworld_render import render_scene
from ldm.runs import doctor
from ldm.runs.doctor_file import FIRST_CONV, INPAINTING, PUBLISHED, container, known_models, nearest
from ldm.runs.doctor_model import HOLE, KEEP
from ldm.runs.doctor_report import Finding, render, verdict
from ldm.runs.doctor_weights import MASK_FIRST, MASK_LAST, averages, damage, is_untrained, order_by_weights
from tests.checkpoints import official

TOYWORLD = [ROOT / f"pretrained_models/toyworld/{name}.safetensors" for name in ("exemplar", "autoencoder", "clip")]
CONV, BIAS = "unet.input_blocks.0.0.weight", "unet.input_blocks.0.0.bias"
MASK = 8


@pytest.fixture(scope="module")
def known():
    return known_models()


@pytest.fixture(scope="module")
def toyworld():
    return {name: tensor.float() for file in TOYWORLD for name, tensor in read_tensors(file).items()}


def pictures(side):
    return torch.stack([torch.from_numpy(render_scene(i, side).image) for i in range(2)]).movedim(-1, 1) / 127.5 - 1


def examine(path, tensors):
    save_tensors(path / "changed.safetensors", tensors)
    findings = doctor.examine([path / "changed.safetensors"], "toyworld", torch.device("cpu"), pictures)
    return {finding.label: finding for finding in findings}, verdict(findings)


def empty(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


# what a file is


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_known(known, name):
    found, finding = nearest(empty(read_manifest(name)), known)
    assert (found.title, finding.status) == (PUBLISHED[name][0], "ok")
    assert f"all {len(read_manifest(name))} tensors" in finding.text


def test_newer_names_and_no_buffers_are_the_same_file(known):
    shapes = {
        name.replace("vision_model.", ""): shape
        for name, shape in read_manifest("paint_by_example").items()
        if not name.endswith("position_ids") and "alphas" not in name
    }
    found, finding = nearest(empty(shapes), known)
    assert (found.title, finding.status) == (PUBLISHED["paint_by_example"][0], "ok")


def test_stable_diffusion_with_9_channels_is_known(known):
    found, finding = nearest(empty({**read_manifest("sd_v1"), FIRST_CONV: (320, 9, 3, 3)}), known)
    assert (found.title, finding.status) == (INPAINTING, "ok")


def test_a_missing_bottleneck_is_a_problem(known):
    """The classic: a file without the trained bottleneck, loaded by others with `strict=False`."""
    roots = ("learnable_vector", "proj_out", "cond_stage_model.mapper", "cond_stage_model.final_ln")
    shapes = {name: shape for name, shape in read_manifest("paint_by_example").items() if not name.startswith(roots)}
    found, finding = nearest(empty(shapes), known)
    assert (found.title, finding.status) == (PUBLISHED["paint_by_example"][0], "PROBLEM")
    lost = len(read_manifest("paint_by_example")) - len(shapes)
    assert f"{lost} missing: learnable_vector" in finding.text and "washed out" in finding.text
    assert finding.short == f"tensors missing: {lost}"


def test_other_differences_are_counted_and_named(known):
    shapes = read_manifest("sd_v1")
    shapes |= {"first_stage_model.conv.bias": (3,), FIRST_CONV: (320, 5, 3, 3)}
    del shapes["model.diffusion_model.out.2.bias"]
    _, finding = nearest(empty(shapes), known)
    assert finding.short == "tensors missing: 1, tensors unexpected: 1, tensors of another shape: 1"
    assert "model.diffusion_model.out.2.bias" in finding.text and "first_stage_model.conv.bias" in finding.text
    assert f"{FIRST_CONV} (320, 5, 3, 3), expected (320, 4, 3, 3)" in finding.text


def test_4_channels_where_9_are_expected():
    v1 = known_models("v1")
    _, finding = nearest(empty(read_manifest("sd_v1")), v1)
    assert finding.status == "PROBLEM" and "tensors missing" in finding.short and "another shape" in finding.short
    _, finding = nearest(empty({**read_manifest("paint_by_example"), FIRST_CONV: (320, 4, 3, 3)}), v1)
    assert finding.short == "tensors of another shape: 1" and "modify_checkpoints.py" in finding.text


@pytest.mark.parametrize(
    "file, title, absent",
    [
        ("exemplar", "ToyWorld's exemplar model", "autoencoder, CLIP"),
        ("autoencoder", "ToyWorld's exemplar model", "UNet, bottleneck, CLIP"),
        ("clip", "ToyWorld's CLIP", ""),
        ("judge", "ToyWorld's judge", ""),
    ],
)
def test_our_own_parts_are_known(known, file, title, absent):
    found, finding = nearest(read_tensors(ROOT / f"pretrained_models/toyworld/{file}.safetensors"), known)
    assert (found.title, finding.status) == (title, "ok")
    assert ("not in it: " + absent in finding.text) if absent else ("not in it" not in finding.text)


@pytest.mark.parametrize(("zipped", "kind"), [(True, "torch zip"), (False, "torch, from before 1.6")])
def test_the_kind_of_a_file(tmp_path, zipped, kind):
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    text = container(tmp_path / "a.ckpt", read_tensors(tmp_path / "a.ckpt")).text
    assert text.startswith(f"a.ckpt: {kind}, ") and "1 float32 tensors" in text
    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2, 3)})
    assert container(tmp_path / "a.safetensors", {}).text.startswith("a.safetensors: safetensors, ")


def test_what_is_of_nobody_known(known):
    found, finding = nearest({"down_blocks.0.resnets.0.conv1.weight": torch.zeros(3)}, known)
    assert found is None and finding.status == "PROBLEM" and "diffusers" in finding.text


# what weights tell


def test_damage():
    good = {"a": torch.ones(2, 2), "b": torch.zeros(3), "i": torch.zeros(2, dtype=torch.int64), "e": torch.empty(0)}
    assert damage(good).status == "ok"
    for bad in (float("nan"), float("inf"), -float("inf")):
        finding = damage({**good, "c": torch.tensor([1.0, bad])})
        assert finding.status == "PROBLEM" and "1 (c)" in finding.text
    half = {f"m{i}": torch.ones(2, 2) for i in range(20)}
    assert damage({**half, "zero": torch.zeros(2, 2)}).status == "note"
    assert damage({"zero": torch.zeros(2, 2)}).status == "PROBLEM"


def test_moving_averages():
    plain = official.stable_diffusion()
    used, finding = averages(plain, "FILE")
    assert finding.status == "ok" and "none kept apart" in finding.text

    other = official.averages(plain)  # the raw weights with the other sign; the counter says 7
    used, finding = averages(other, "FILE")
    assert finding.status == "ok" and "7 updates" in finding.text
    name = "model.diffusion_model.out.2.weight"
    assert torch.equal(used[name], -plain[name])

    frozen = {**other, "model_ema.num_updates": torch.tensor(0)}
    assert averages(frozen, "FILE")[1].short == "moving averages were never updated"

    equal = {key: -value if key.startswith("model_ema.d") and value.ndim else value for key, value in other.items()}
    finding = averages(equal, "FILE")[1]
    assert finding.status == "note" and "all equal to the raw weights" in finding.text

    del other["model_ema.diffusion_modelout2weight"]
    used, finding = averages(other, "FILE")
    assert finding.status == "PROBLEM" and "1 missing" in finding.text
    assert torch.equal(used[name], plain[name])


def draw(order, likeness, out=320, seed=0):
    """First-layer weights in which the masked latent's filters have a cosine of about `likeness` with the latent's."""
    generator = torch.Generator().manual_seed(seed)
    noisy, own, mask = (torch.randn(out, n, 3, 3, generator=generator) for n in (4, 4, 1))
    masked = likeness * noisy + (1 - likeness**2) ** 0.5 * own
    return torch.cat([noisy, masked, 2 * mask] if order == MASK_LAST else [noisy, 2 * mask, masked], dim=1)


@pytest.mark.parametrize("order", [MASK_LAST, MASK_FIRST])
@pytest.mark.parametrize("likeness", [0.1, -0.2, 0.9])
def test_the_order_of_channels_is_told_from_filters(order, likeness):
    assert {order_by_weights(draw(order, likeness, seed=seed))[0] for seed in range(20)} == {order}


def test_the_order_is_not_told_from_chance():
    assert {order_by_weights(draw(MASK_LAST, 0.0, out=64, seed=seed))[0] for seed in range(300)} == {None}


def test_the_order_is_told_from_the_shipped_weights(toyworld):
    swapped = toyworld[CONV][:, [0, 1, 2, 3, MASK, 4, 5, 6, 7]]
    assert order_by_weights(toyworld[CONV])[0] == MASK_LAST
    assert order_by_weights(swapped)[0] == MASK_FIRST


def test_extended_channels_are_untrained():
    weight = {FIRST_CONV: torch.ones(8, 4, 3, 3)}
    assert is_untrained(expand_in_channels(weight, 9, "FILE")[FIRST_CONV])
    assert not is_untrained(torch.ones(8, 9, 3, 3))


# what networks do


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
def test_order_and_polarity_are_found_by_trial(tmp_path, toyworld, order, polarity, monkeypatch):
    monkeypatch.setattr("ldm.runs.doctor_model.PRECISIONS", {"fp32": torch.float32})
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
        assert doctor.layout(weight, dict(zip((right, turned_, first, both), errors, strict=True)))[0] == expected


def test_overflow_is_named_with_what_to_use(tmp_path, toyworld):
    name = "autoencoder.encoder.conv_in.weight"
    found, (line, fine) = examine(tmp_path, {**toyworld, name: 1e5 * toyworld[name]})
    assert fine and "use fp32 or bf16" in line
    assert "VAE encode overflows in fp16" in found["precision"].text


def test_broken_networks(tmp_path, toyworld, monkeypatch):
    monkeypatch.setattr("ldm.runs.doctor_model.PRECISIONS", {"fp32": torch.float32})
    generator = torch.Generator().manual_seed(0)
    changed = {
        name: 0.05 * torch.randn(tensor.shape, generator=generator)
        if name.startswith(("unet.", "autoencoder.decoder."))
        else tensor
        for name, tensor in toyworld.items()
    }
    found, (line, _) = examine(tmp_path, changed)
    assert line.startswith("verdict: broken: autoencoder's round trip") and line.endswith("the UNet does not denoise")
    assert "cannot be told" in found["input"].text and found["input"].status == "note"

    changed["unet.out.2.bias"] = torch.full((4,), float("nan"))
    found, (line, _) = examine(tmp_path, changed)
    assert "NaN or inf in UNet step" in line and "1 (unet.out.2.bias)" in found["weights"].text


def test_a_stage_answers_for_itself(tmp_path, toyworld, monkeypatch):
    monkeypatch.setattr("ldm.runs.doctor_model.PRECISIONS", {"fp32": torch.float32})
    bad = torch.full_like(toyworld["autoencoder.encoder.conv_out.bias"], float("nan"))
    found, (line, _) = examine(tmp_path, {**toyworld, "autoencoder.encoder.conv_out.bias": bad})
    outcomes = {row[:14].strip(): row[14:].strip() for row in found["precision"].table[1:]}
    assert outcomes == {"CLIP encode": "ok", "VAE encode": "NaN", "VAE decode": "ok", "UNet step": "ok"}
    assert "NaN or inf in VAE encode" in line


def test_untrained_channels(tmp_path, toyworld, monkeypatch):
    monkeypatch.setattr(doctor, "_free", lambda device: 0)
    weight = toyworld[CONV].clone()
    weight[:, 4:] = 0
    found, (line, fine) = examine(tmp_path, {**toyworld, CONV: weight})
    assert found["networks"].status == "skipped" and "0.0 GiB are free" in found["networks"].text
    assert not fine and "never trained" in line


# how it is shown


def test_the_report_fits_the_terminal(toyworld, known):
    finding = nearest({**toyworld, **{f"unet.{i}.surplus": torch.zeros(1) for i in range(5)}}, known)[1]
    text = render([finding, Finding("precision", "ok", "short", table=["a", "b"])], 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1] == " " * 21 + "b"


def test_the_verdict_names_what_is_wrong():
    good, bad = Finding("model", "ok", "", "ToyWorld"), Finding("weights", "PROBLEM", "", "NaN in 1 tensors")
    assert verdict([good]) == ("verdict: fine: ToyWorld", True)
    assert verdict([good, bad, dataclasses.replace(bad, short="b")]) == ("verdict: broken: NaN in 1 tensors; b", False)
