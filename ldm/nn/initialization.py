"""How layers start when they are trained from scratch."""

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def zero_init(module: M) -> M:
    """Set all parameters to zero and return the module: a residual branch that ends in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
