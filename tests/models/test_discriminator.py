import torch

from ldm.models.discriminator import PatchDiscriminator


def test_names_and_shapes_are_those_of_ldms_checkpoints():
    """What stands below `loss.discriminator.` in them."""
    expected = {"main.0.weight": (64, 3, 4, 4), "main.0.bias": (64,)}
    for conv, (before, after) in {2: (64, 128), 5: (128, 256), 8: (256, 512)}.items():
        norm = f"main.{conv + 1}."
        expected[f"main.{conv}.weight"] = (after, before, 4, 4)
        expected |= {norm + name: (after,) for name in ("weight", "bias", "running_mean", "running_var")}
        expected[norm + "num_batches_tracked"] = ()
    expected |= {"main.11.weight": (1, 512, 4, 4), "main.11.bias": (1,)}
    with torch.device("meta"):
        found = PatchDiscriminator().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected


def test_a_logit_for_every_8_pixels_sees_70():
    network = PatchDiscriminator(ndf=4).eval()
    x = torch.randn(1, 3, 256, 256, requires_grad=True)
    logits = network(x)
    assert logits.shape == (1, 1, 30, 30)
    sides = []
    for row in (14, 15):
        (gradient,) = torch.autograd.grad(logits[0, 0, row, 14], x, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 3)).nonzero()
        sides.append((int(seen.min()), int(seen.max())))
    assert [end - start + 1 for start, end in sides] == [70, 70]
    assert sides[1][0] - sides[0][0] == 8


def test_initial_weights():
    torch.manual_seed(0)
    network = PatchDiscriminator(ndf=32)
    conv, norm = network.main[8].weight, network.main[9]
    assert abs(conv.std() - 0.02) < 2e-4 and abs(conv.mean()) < 2e-4
    assert abs(norm.weight.std() - 0.02) < 3e-3 and abs(norm.weight.mean() - 1) < 5e-3
    assert torch.count_nonzero(norm.bias) == 0
