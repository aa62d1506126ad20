"""The Inception network of FID (Heusel et al., 1706.08500), up to its last pooling."""

from collections import OrderedDict

from torch import nn

from ldm.utils.extras import require


def fid_inception() -> nn.Sequential:
    """Build TensorFlow's Inception of 2015: (B, 3, 299, 299) in [-1, 1] -> (B, 2048), the `pool3` of FID.

    It differs from torchvision's Inception in its poolings. The blocks and the names are torch-fidelity's, whose own
    class of the network unpickles its weights, or downloads them.

    Raises:
        UserError: torch-fidelity is not installed.
    """
    require("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import (
        BasicConv2d,
        InceptionA,
        InceptionB,
        InceptionC,
        InceptionD,
        InceptionE_1,
        InceptionE_2,
    )

    return nn.Sequential(
        OrderedDict(
            Conv2d_1a_3x3=BasicConv2d(3, 32, kernel_size=3, stride=2),
            Conv2d_2a_3x3=BasicConv2d(32, 32, kernel_size=3),
            Conv2d_2b_3x3=BasicConv2d(32, 64, kernel_size=3, padding=1),
            MaxPool_1=nn.MaxPool2d(kernel_size=3, stride=2),
            Conv2d_3b_1x1=BasicConv2d(64, 80, kernel_size=1),
            Conv2d_4a_3x3=BasicConv2d(80, 192, kernel_size=3),
            MaxPool_2=nn.MaxPool2d(kernel_size=3, stride=2),  # 35 x 35
            Mixed_5b=InceptionA(192, pool_features=32),
            Mixed_5c=InceptionA(256, pool_features=64),
            Mixed_5d=InceptionA(288, pool_features=64),
            Mixed_6a=InceptionB(288),  # 17 x 17
            Mixed_6b=InceptionC(768, channels_7x7=128),
            Mixed_6c=InceptionC(768, channels_7x7=160),
            Mixed_6d=InceptionC(768, channels_7x7=160),
            Mixed_6e=InceptionC(768, channels_7x7=192),
            Mixed_7a=InceptionD(768),  # 8 x 8
            Mixed_7b=InceptionE_1(1280),
            Mixed_7c=InceptionE_2(2048),
            AvgPool=nn.AdaptiveAvgPool2d(1),
            Flatten=nn.Flatten(),
        )
    )
