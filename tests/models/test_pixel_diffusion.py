"""What a model of pictures refuses as it is built."""

import pytest

from ldm.config import build
from ldm.diffusion import variance
from ldm.models.pixel_diffusion import VARIANCES
from ldm.utils.errors import UserError
from tests.checkpoints.guided import config


def built(**changes):
    node = config().model
    node.params.update(changes)
    return build(node)


def test_the_variances_are_those_that_there_are():
    assert VARIANCES == tuple(variance.VARIANCES)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"variance": "foo"}, "variance 'foo': expected one of fixed_small, fixed_large, learned_range, learned_clip"),
        ({"variance": "learned"}, "variance 'learned': expected one of"),
        ({"image_size": 17}, "image_size 17: expected a multiple of 2 for the levels of the UNet$"),
        ({"image_size": 0}, "image_size 0: expected a multiple of"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(UserError, match=f"^{message}"):
        built(**wrong)


def test_what_fits():
    model = built(image_size=48)
    assert model.image_size % model.multiple == 0
