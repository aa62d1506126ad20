import copy
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

from ldm.checkpoints.lpips import classifier_shapes, make_lpips
from tests.classifiers import classifier
from tests.refusals import refused

TORCHVISION_NAMES = {"alex": "alexnet", "vgg": "vgg16"}
SMALLEST = {"alex": 31, "vgg": 16}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def net(request):
    return request.param


@pytest.fixture(scope="module")
def features(net):
    return classifier(net)


@pytest.fixture(scope="module")
def lpips(net, features):
    return make_lpips(net, {f"features.{name}": tensor for name, tensor in features.state_dict().items()}, "here")


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(3, 3, 64, 48, generator=generator) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)


def test_agrees_with_torchmetrics(lpips, net, features, pictures, monkeypatch):
    pretrained = SimpleNamespace(features=copy.deepcopy(features))
    monkeypatch.setattr(torchvision.models, TORCHVISION_NAMES[net], lambda weights: pretrained)
    a, b = (x.clone().requires_grad_() for x in pictures)
    pairs = zip(a.split(1), b.split(1), strict=True)
    expected = torch.stack([learned_perceptual_image_patch_similarity(*pair, net_type=net) for pair in pairs])
    found = lpips(a, b)
    assert expected.shape == (3,) and expected.min() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    expected, found = (torch.autograd.grad(distances.sum(), a)[0] for distances in (expected, found))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_equal_pictures_have_distance_zero(lpips, pictures):
    assert lpips(pictures[0], pictures[0].clone()).tolist() == [0, 0, 0]


def test_the_smallest_pictures(lpips, net, pictures):
    side = SMALLEST[net]
    a, b = (x[..., :side, :side] for x in pictures)
    assert lpips(a, b).min() > 0
    with pytest.raises(RuntimeError, match="too small"):
        lpips(a[..., 1:], b[..., 1:])


def test_positions_where_nothing_is_active_have_a_gradient(lpips, pictures):
    lpips = copy.deepcopy(lpips)
    for parameter in lpips.features[0].parameters():
        parameter.zero_()
    a = pictures[0].requires_grad_()
    lpips(a, pictures[1]).sum().backward()
    assert torch.count_nonzero(a.grad) == 0  # and not NaN, as a length of zero would make it


def test_the_other_classifier_is_refused(net):
    other = {"alex": "vgg", "vgg": "alex"}[net]
    tensors = {name: torch.zeros(shape) for name, shape in classifier_shapes(other).items()}
    with refused("other.pth"):
        make_lpips(net, tensors, "other.pth")
    with refused("linear.pth"):
        make_lpips(net, nn.Linear(2, 2).state_dict(), "linear.pth")
