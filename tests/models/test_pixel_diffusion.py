"""What a model of pictures refuses as it is built."""

import pytest

from ldm.config import build
from ldm.diffusion import variance
from ldm.models.pixel_diffusion import VARIANCES
from tests.checkpoints.guided import config
from tests.refusals import refused


def built(**changes):
    node = config().model
    node.params.update(changes)
    return build(node)


def test_the_variances_are_those_that_there_are():
    assert VARIANCES == tuple(variance.VARIANCES)


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        ({"variance": "foo"}, ("variance", "foo", "fixed_small", "fixed_large", "learned_range", "learned_clipped")),
        ({"variance": "learned"}, ("variance", "learned")),
        ({"image_size": 17}, ("image_size", 17, 2)),
        ({"image_size": 0}, ("image_size", 0)),
    ],
)
def test_what_does_not_fit_is_refused(wrong, wanted):
    with refused(wanted):
        built(**wrong)


def test_what_fits():
    model = built(image_size=48)
    assert model.image_size % model.multiple == 0
