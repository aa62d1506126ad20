import copy

import pytest
import torch

from ldm.models.attention import SpatialTransformer
from ldm.models.layers import ResBlock
from ldm.models.unet import UNet
from tests.golden_weights import fill, load_golden
from tests.refusals import refused

TINY = dict(model_channels=32, num_res_blocks=1, attention_resolutions=(2,), channel_mult=(1, 2), num_heads=4)


def tiny(**options):
    """A small network with synthetic weights: none of its layers is zero."""
    return fill(UNet(in_channels=4, out_channels=4, **{**TINY, **options}))


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(scope="module")
def golden9():
    return load_golden("unet9_small")


@pytest.fixture(scope="module")
def unet9(golden9):
    options = dict(golden9["config"]["cfg"])
    for name in ("image_size", "use_spatial_transformer", "legacy"):
        del options[name]
    return fill(UNet(**options), prefix="model.diffusion_model.")


def inputs(golden):
    return golden["x"], golden["t"], golden["context"]


@pytest.mark.parametrize("no_grad", [True, False])  # without gradients a context of one token takes the short way
def test_paint_by_example_unet_agrees_with_the_original(unet9, golden9, no_grad):
    seen = {}
    hooks = [
        unet9.get_submodule(key[4:]).register_forward_hook(lambda *a, key=key: seen.update({key: a[-1]}))
        for key in golden9
        if key.startswith("act_")
    ]
    with torch.set_grad_enabled(not no_grad):
        seen["out"] = unet9(*inputs(golden9))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 10
    for key, value in seen.items():
        torch.testing.assert_close(value, golden9[key], atol=5e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", ["guided_unet_small", "guided_unet_small_classcond"])
def test_guided_diffusion_unet_agrees_with_the_original(name):
    golden = load_golden(name)
    config, options = golden["config"], golden["config"]["cfg"]
    same = ["num_res_blocks", "num_heads", "num_head_channels"]
    same += ["use_scale_shift_norm", "resblock_updown", "use_new_attention_order"]
    unet = UNet(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        model_channels=options["num_channels"],
        attention_resolutions=[
            options["image_size"] // int(side) for side in options["attention_resolutions"].split(",")
        ],
        channel_mult=[int(mult) for mult in options["channel_mult"].split(",")],
        num_classes=config["num_classes"],
        **{name: options[name] for name in same},
    )
    out = fill(unet)(golden["x"], golden["t"], y=golden["y"] if config["num_classes"] else None)
    torch.testing.assert_close(out, golden["out"], atol=5e-5, rtol=0)


def test_epsilons_of_the_norms(unet9):
    def epsilons(*owners):
        modules = [m for m in unet9.modules() if isinstance(m, owners)]
        return {norm.eps for module in modules for norm in module.modules() if isinstance(norm, torch.nn.GroupNorm)}

    assert epsilons(ResBlock) == {1e-5} and unet9.out[0].eps == 1e-5
    assert epsilons(SpatialTransformer) == {1e-6}


def test_short_way_of_a_one_token_context_is_exact_and_taken(unet9, golden9):
    unet = copy.deepcopy(unet9).double().requires_grad_(True)
    x, t, context = golden9["x"].double(), golden9["t"], golden9["context"].double()
    calls = []
    blocks = [
        block
        for module in unet.modules()
        if isinstance(module, SpatialTransformer)
        for block in module.transformer_blocks
    ]
    for block in blocks:
        for layer in (block.norm2, block.attn2.to_q, block.attn2.to_k):
            layer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        short = unet(x, t, context)
        assert not calls
    full = unet(x, t, context)
    assert len(calls) == 3 * len(blocks) == 3 * 16
    torch.testing.assert_close(short, full, atol=1e-12, rtol=0)
    with torch.no_grad():  # two equal tokens mean the same, and take the full way
        doubled = unet(x, t, context.expand(-1, 2, -1))
    assert len(calls) == 2 * 3 * len(blocks)
    torch.testing.assert_close(doubled, full, atol=1e-12, rtol=0)

    trained = [p for block in blocks for p in (block.attn2.to_v.weight, block.attn2.to_out[0].bias)]
    expected = torch.autograd.grad(full.square().mean(), trained)
    for block in blocks:  # as in training, where what has no gradient is frozen
        for layer in (block.norm2, block.attn2.to_q, block.attn2.to_k):
            layer.requires_grad_(False)
    calls.clear()
    found = torch.autograd.grad(unet(x, t, context).square().mean(), trained)
    assert not calls
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_changes_no_gradient(dtype):
    x, t, context = noise(2, 4, 8, 8), torch.tensor([3, 700]), noise(2, 3, 24)
    gradients = []
    for use_checkpoint in (False, True):
        unet = tiny(context_dim=24, dropout=0.3, use_checkpoint=use_checkpoint).train().requires_grad_(True)
        torch.manual_seed(0)  # dropout must drop the same units when it runs for the second time
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            unet(x, t, context).float().square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in unet.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_checkpointing_keeps_fewer_activations_and_only_in_training():
    def kept(use_checkpoint, grad=True):
        unet, sizes = tiny(context_dim=24, use_checkpoint=use_checkpoint).requires_grad_(True), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()), lambda x: x):
            with torch.set_grad_enabled(grad):
                unet(noise(2, 4, 8, 8), torch.tensor([3, 700]), noise(2, 3, 24))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)
    assert kept(True, grad=False) == 0


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-5), (torch.bfloat16, 0.06)])
def test_precisions(dtype, atol):
    x, t, context = noise(2, 4, 8, 8), torch.tensor([3, 700]), noise(2, 1, 24)
    unet = tiny(context_dim=24)
    expected = unet(x, t, context)
    unet.to(dtype)
    out = unet(x, t, context)
    assert out.dtype == torch.float32  # a sampler keeps its latents in float32 whatever the network runs in
    torch.testing.assert_close(out, expected, atol=atol, rtol=0)
    assert unet(x.to(dtype), t, context.to(dtype)).dtype == dtype


def test_memory_format_changes_nothing():
    x, t = noise(2, 4, 6, 10), torch.tensor([3, 700])
    unet = tiny()
    expected = unet(x, t)
    out = unet.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_time_class_and_context_matter():
    unet = tiny(context_dim=24, num_classes=10)
    x, context = noise(1, 4, 8, 8), noise(1, 2, 24)
    outs = [
        unet(x, torch.tensor([t]), c, torch.tensor([y]))
        for t, c, y in ((5, context, 1), (6, context, 1), (5, -context, 1), (5, context, 2))
    ]
    assert all((out - outs[0]).abs().max() > 1e-3 for out in outs[1:])


def test_from_scratch_the_output_is_zero_and_everything_learns():
    torch.manual_seed(0)
    unet = UNet(in_channels=4, out_channels=4, **TINY, context_dim=24)
    x, t, context = noise(2, 4, 8, 8), torch.tensor([3, 700]), noise(2, 3, 24)
    assert not unet(x, t, context).any()
    optimizer = torch.optim.Adam(unet.parameters(), 1e-3)
    for _ in range(4):  # step by step the zero layers open the way to those before them
        optimizer.zero_grad()
        (unet(x, t, context) - x).square().mean().backward()
        optimizer.step()
    assert [name for name, parameter in unet.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("heads", [dict(num_heads=-1), dict(num_heads=5), dict(num_head_channels=48)])
def test_widths_that_do_not_divide_into_heads_are_refused(heads):
    with refused("UNet", 64):
        UNet(in_channels=4, out_channels=4, **{**TINY, **heads})


def test_a_missing_condition_is_an_error():
    x, t = noise(1, 4, 8, 8), torch.tensor([3])
    with refused("context", error=ValueError):
        tiny(context_dim=24)(x, t)
    with refused("y", error=ValueError):
        tiny(num_classes=3)(x, t)
    with refused("context", error=ValueError):
        tiny()(x, t, noise(1, 1, 24))
