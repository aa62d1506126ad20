"""torchvision's classifiers as files have them, with random weights."""

import torch
from torch import nn
from torchvision.models import alexnet
from torchvision.models.vgg import cfgs, make_layers


def classifier(net: str) -> nn.Sequential:
    """The convolutions of AlexNet or VGG16 at their real size, random; activations are of one size in every layer."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        layers = make_layers(cfgs["D"]) if net == "vgg" else alexnet(weights=None).features
    layers.to_empty(device="cpu")
    for name, tensor in layers.state_dict().items():
        fan_in = tensor[0].numel()
        tensor.normal_(0, 0.1 if name.endswith("bias") else (2 / fan_in) ** 0.5, generator=generator)
    return layers
