"""ADM's classifier: its first half is the U-Net's, which agrees with the original; its pool: test_attention.py."""

import pytest
import torch

from ldm.models.classifier import Classifier
from ldm.models.unet import UNet
from tests.golden_weights import fill
from tests.refusals import refused

OPTIONS = dict(
    model_channels=32,
    num_res_blocks=1,
    attention_resolutions=(2,),
    channel_mult=(1, 2),
    num_head_channels=32,
    use_scale_shift_norm=True,
    resblock_updown=True,
)


@pytest.fixture(scope="module")
def classifier():
    return fill(Classifier(image_size=16, num_classes=7, **OPTIONS))


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


T = torch.tensor([3, 700])


def test_the_first_half_is_the_unet(classifier, x):
    unet, middle = fill(UNet(in_channels=3, out_channels=6, **OPTIONS)), {}
    for network in (unet, classifier):
        network.middle_block.register_forward_hook(lambda module, inputs, h: middle.update({id(module): h}))
    unet(x, T)
    logits = classifier(x, T)
    assert logits.shape == (2, 7) and logits.dtype == torch.float32
    assert torch.equal(middle[id(unet.middle_block)], middle[id(classifier.middle_block)])


def test_it_has_a_gradient_by_the_picture_and_knows_the_time(classifier, x):
    x = x.clone().requires_grad_(True)
    logits = classifier(x, T)
    (gradient,) = torch.autograd.grad(logits.log_softmax(1)[:, 2].sum(), x)
    assert gradient.isfinite().all() and (gradient.abs().amax((1, 2, 3)) > 1e-4).all()
    with torch.no_grad():
        assert (classifier(x, T + 1) - logits).abs().max() > 1e-3
        torch.testing.assert_close(classifier(x[1:], T[1:]), logits[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-5), (torch.bfloat16, 0.1)])
def test_precisions(classifier, x, dtype, atol):
    network = fill(Classifier(image_size=16, num_classes=7, **OPTIONS)).to(dtype)
    out = network(x, T)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, classifier(x, T), atol=atol, rtol=0)


def test_pictures_of_another_size_are_refused(classifier):
    with refused("24x16", "16x16"):
        classifier(torch.zeros(1, 3, 16, 24), T[:1])
    with refused("image_size", 15, 2):
        Classifier(image_size=15, num_classes=7, **OPTIONS)
