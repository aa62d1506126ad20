import pytest
import torch

from ldm.toyworld.hole_scenes import HoleScenes
from ldm.utils.errors import UserError


def test_scenes_are_the_same_under_every_mask():
    wide, half = HoleScenes(7, 3, "wide", 32), HoleScenes(7, 3, "half", 32)
    for i in range(3):
        assert torch.equal(wide[i]["image"], half[i]["image"])
        assert wide[i]["image"].shape == (3, 32, 32) and wide[i]["mask"].shape == (1, 32, 32)
        assert torch.equal(half[i]["mask"], half[0]["mask"])
    assert not torch.equal(wide[0]["mask"], wide[1]["mask"])
    assert not torch.equal(wide[0]["image"], wide[1]["image"])
    assert len(list(wide)) == len(wide) == 3


def test_an_item_follows_from_seed_and_index():
    for name, same in HoleScenes(7, 9, "wide", 32)[2].items():
        assert torch.equal(same, HoleScenes(7, 3, "wide", 32)[2][name])
        assert not torch.equal(same, HoleScenes(8, 3, "wide", 32)[2][name])


@pytest.mark.parametrize("kind, size, message", [("whole", 64, "'whole': expected one of"), ("wide", 4, "size 4x4")])
def test_what_cannot_be_drawn_is_refused_at_once(kind, size, message):
    with pytest.raises(UserError, match=message):
        HoleScenes(7, 3, kind, size)
