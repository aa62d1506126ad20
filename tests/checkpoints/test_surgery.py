import copy

import pytest
import torch

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.load import build_empty
from ldm.checkpoints.open import load
from ldm.checkpoints.surgery import expand_in_channels, prefer_ema
from tests.checkpoints import official
from tests.golden_weights import fill
from tests.refusals import assert_refused, refused

FIRST_CONV = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize("in_channels", [5, 9, 12])
def test_new_channels_are_zero_and_everything_else_stays(in_channels):
    tensors = official.stable_diffusion()
    before = copy.deepcopy(tensors)
    after = expand_in_channels(tensors, in_channels, "sd.ckpt")
    assert list(after) == list(before)
    assert after[FIRST_CONV].shape == (32, in_channels, 3, 3)
    assert torch.equal(after[FIRST_CONV][:, :4], before[FIRST_CONV])
    assert torch.equal(after[FIRST_CONV][:, 4:], torch.zeros(32, in_channels - 4, 3, 3))
    for name, tensor in before.items():
        assert torch.equal(tensors[name], tensor)  # what was given is left as it was
        assert name == FIRST_CONV or torch.equal(after[name], tensor)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_wider_network_computes_what_the_narrow_one_does(dtype, tolerance):
    narrow = fill(build_empty(official.model_config(in_channels=4).model.params.unet), "model.diffusion_model.").to(
        dtype
    )
    root = "model.diffusion_model."
    expanded = expand_in_channels({root + name: t for name, t in narrow.state_dict().items()}, 9, "sd.ckpt")
    wide = build_empty(official.model_config(in_channels=9).model.params.unet)
    wide.load_state_dict({name.removeprefix(root): t for name, t in expanded.items()}, assign=True)

    draw = torch.Generator().manual_seed(0)
    x, context = (torch.randn(s, generator=draw, dtype=dtype) for s in ((2, 4, 8, 8), (2, 3, official.CONTEXT)))
    t = torch.tensor([1, 900])
    masked_latent = 50 * torch.randn(2, 4, 8, 8, generator=draw, dtype=dtype)
    for mask in (torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8), torch.rand(2, 1, 8, 8, generator=draw)):
        with torch.no_grad():
            expected = narrow(x, t, context)
            found = wide(torch.cat([x, masked_latent, mask.to(dtype)], dim=1), t, context)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("in_channels", [1, 8, 9])
def test_an_extended_file_is_refused(in_channels):
    with refused("pbe.ckpt", 9):
        expand_in_channels(official.paint_by_example(), in_channels, "pbe.ckpt")


def test_a_file_without_such_a_unet_is_refused():
    with refused("vgg.ckpt"):
        expand_in_channels({"weight": torch.ones(1)}, 9, "vgg.ckpt")
    with refused("odd.ckpt"):
        expand_in_channels({FIRST_CONV: torch.ones(2, 3)}, 9, "odd.ckpt")


def test_averages_take_the_place_of_raw_weights():
    raw = official.stable_diffusion()
    tensors, count = prefer_ema(official.averages(raw), "sd.ckpt")
    assert count == sum(name.startswith("model.") for name in raw)
    assert list(tensors) == [name for name in raw if not name.startswith("model_ema.")]
    for name, tensor in tensors.items():
        assert torch.equal(tensor, -raw[name] if name.startswith("model.") else raw[name])


def test_without_averages_nothing_happens():
    raw = official.stable_diffusion()
    tensors, count = prefer_ema(raw, "sd.ckpt")
    assert count == 0 and list(tensors) == list(raw)
    assert all(tensors[name] is raw[name] for name in raw)


def test_incomplete_averages_are_refused():
    full = official.averages(official.stable_diffusion())
    missing = "model_ema.diffusion_modelout2bias"
    with refused("sd.ckpt", 1, missing):
        prefer_ema({name: tensor for name, tensor in full.items() if name != missing}, "sd.ckpt")
    with refused("sd.ckpt", 1, "model_ema.other"):
        prefer_ema({**full, "model_ema.other": torch.ones(1)}, "sd.ckpt")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("with_averages", [False, True])
def test_the_script(tmp_path, run_script, suffix, with_averages):
    tensors = official.stable_diffusion()
    source = official.write(tmp_path / "sd.ckpt", official.averages(tensors) if with_averages else tensors)
    target = tmp_path / f"sd9{suffix}"
    done = run_script("modify_checkpoints.py", "--in_path", source, "--out_path", target)
    assert done.returncode == 0, done.stderr
    assert ("averages" in done.stdout) == with_averages

    found = read_tensors(target)
    text = {name: tensor for name, tensor in tensors.items() if name.startswith("cond_stage_model.")}
    assert text and all(torch.equal(found[name], tensor) for name, tensor in text.items())
    assert torch.equal(found[FIRST_CONV][:, :4], tensors[FIRST_CONV] * (-1 if with_averages else 1))
    if suffix == ".ckpt":  # as other code bases read it
        assert set(torch.load(target, weights_only=True)) == {"state_dict"}
    config = official.model_config(official.TEXT, in_channels=9)
    assert load(config, target).unet.input_blocks[0][0].weight.shape[1] == 9

    again = run_script("modify_checkpoints.py", "--in_path", target, "--out_path", tmp_path / "more.ckpt")
    assert_refused(again, target, 9)
    assert not (tmp_path / "more.ckpt").exists()


def test_the_script_with_its_defaults(tmp_path, run_script):
    (tmp_path / "pretrained_models").mkdir()
    official.write(tmp_path / "pretrained_models/sd-v1-4.ckpt", official.stable_diffusion())
    assert run_script("modify_checkpoints.py").returncode == 0
    found = read_tensors(tmp_path / "pretrained_models/sd-v1-4-modified-9channel.ckpt")
    assert found[FIRST_CONV].shape == (32, 9, 3, 3)


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--in_path", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--in_channels", "0"], "--in_channels 0"),
        (["--in_channels", "many"], "--in_channels"),
        (["--in_chanels", "9"], "--in_chanels"),
        (["--in_path", "sd.ckpt", "--out_path", "nowhere/x.ckpt"], "nowhere/x.ckpt"),
        (["--in_path", "text.ckpt"], "text.ckpt"),
    ],
)
def test_the_script_answers_bad_input_in_one_line(tmp_path, run_script, arguments, named):
    official.write(tmp_path / "sd.ckpt", official.stable_diffusion())
    (tmp_path / "text.ckpt").write_text("hello")
    done = run_script("modify_checkpoints.py", *arguments)
    assert_refused(done, named)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sd.ckpt", "text.ckpt"]
