"""What a file is: the models that are known, and how others differ from them."""

import pytest
import torch

from ldm.checkpoints.io import read_tensors, save_tensors
from ldm.checkpoints.manifest import read_manifest
from ldm.doctor.file import FIRST_CONV, INPAINTING, PUBLISHED, container, known_models, nearest_model
from ldm.utils.project import ROOT


def empty(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_known(known, name):
    found, finding = nearest_model(empty(read_manifest(name)), known)
    assert (found.title, finding.status) == (PUBLISHED[name][0], "ok")
    assert f"all {len(read_manifest(name))} tensors" in finding.text


def test_newer_names_and_no_buffers_are_the_same_file(known):
    shapes = {
        name.replace("vision_model.", ""): shape
        for name, shape in read_manifest("paint_by_example").items()
        if not name.endswith("position_ids") and "alphas" not in name
    }
    found, finding = nearest_model(empty(shapes), known)
    assert (found.title, finding.status) == (PUBLISHED["paint_by_example"][0], "ok")


def test_stable_diffusion_with_9_channels_is_known(known):
    found, finding = nearest_model(empty({**read_manifest("sd_v1"), FIRST_CONV: (320, 9, 3, 3)}), known)
    assert (found.title, finding.status) == (INPAINTING, "ok")


def test_a_missing_bottleneck_is_a_problem(known):
    """The classic: a file without the trained bottleneck, loaded by others with `strict=False`."""
    roots = ("learnable_vector", "proj_out", "cond_stage_model.mapper", "cond_stage_model.final_ln")
    shapes = {name: shape for name, shape in read_manifest("paint_by_example").items() if not name.startswith(roots)}
    found, finding = nearest_model(empty(shapes), known)
    assert (found.title, finding.status) == (PUBLISHED["paint_by_example"][0], "PROBLEM")
    lost = len(read_manifest("paint_by_example")) - len(shapes)
    assert f"{lost} missing: learnable_vector" in finding.text and "washed out" in finding.text
    assert finding.short == f"tensors missing: {lost}"


def test_other_differences_are_counted_and_named(known):
    shapes = read_manifest("sd_v1")
    shapes |= {"first_stage_model.conv.bias": (3,), FIRST_CONV: (320, 5, 3, 3)}
    del shapes["model.diffusion_model.out.2.bias"]
    _, finding = nearest_model(empty(shapes), known)
    assert finding.short == "tensors missing: 1, tensors unexpected: 1, tensors of another shape: 1"
    assert "model.diffusion_model.out.2.bias" in finding.text and "first_stage_model.conv.bias" in finding.text
    assert f"{FIRST_CONV} (320, 5, 3, 3), expected (320, 4, 3, 3)" in finding.text


def test_4_channels_where_9_are_expected():
    v1 = known_models("v1")
    _, finding = nearest_model(empty(read_manifest("sd_v1")), v1)
    assert finding.status == "PROBLEM" and "tensors missing" in finding.short and "another shape" in finding.short
    _, finding = nearest_model(empty({**read_manifest("paint_by_example"), FIRST_CONV: (320, 4, 3, 3)}), v1)
    assert finding.short == "tensors of another shape: 1" and "modify-checkpoints" in finding.text


@pytest.mark.parametrize(
    "file, title, absent",
    [
        ("exemplar", "ToyWorld's exemplar model", "autoencoder, CLIP"),
        ("text", "ToyWorld's text-to-image model", "autoencoder, CLIP"),
        ("autoencoder", "ToyWorld's exemplar model", "UNet, bottleneck, CLIP"),
        ("clip", "ToyWorld's CLIP", ""),
        ("judge", "ToyWorld's judge", ""),
    ],
)
def test_our_own_parts_are_known(known, file, title, absent):
    found, finding = nearest_model(read_tensors(ROOT / f"pretrained_models/toyworld/{file}.safetensors"), known)
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
    found, finding = nearest_model({"down_blocks.0.resnets.0.conv1.weight": torch.zeros(3)}, known)
    assert found is None and finding.status == "PROBLEM" and "diffusers" in finding.text
