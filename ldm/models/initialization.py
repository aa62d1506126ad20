"""How layers start when they are trained from scratch."""

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def zero_init(module: M) -> M:
    """Set all parameters to zero and return the module: a residual branch that ends in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def normal_init(parameter: nn.Parameter, std: float = 1.0) -> nn.Parameter:
    """Draw a parameter from N(0, std^2) and return it.

    On the meta device there is nothing to draw; torch would first load its compiler, which takes 2 s.
    """
    return parameter if parameter.is_meta else nn.init.normal_(parameter, std=std)
