import pytest
import torch

from ldm.toyworld.datasets import ToyWorldJudged
from ldm.toyworld.judge import PADDING, Judge, crop
from ldm.utils.project import ROOT
from tests.refusals import refused
from tests.tiny import shipped_judge


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_crop_at_its_own_size_is_a_cut():
    images = noise(2, 3, 20, 30)
    boxes = torch.tensor([[4, 3, 12, 11], [21, 11, 29, 19]])
    cuts = torch.stack([images[0, :, 3:11, 4:12], images[1, :, 11:19, 21:29]])
    torch.testing.assert_close(crop(images, boxes, size=8, padding=0), cuts, atol=1e-5, rtol=0)


def test_a_crop_samples_its_box_evenly_between_the_edges():
    """On a ramp, bilinear sampling returns positions: pixel i has its centre at i + 0.5."""
    x, y = torch.arange(40) + 0.5, torch.arange(24) + 0.5
    ramp = torch.stack([x.expand(24, 40), y[:, None].expand(24, 40)])[None]
    x0, y0, x1, y1 = 5.5, 4.0, 30.0, 17.25
    found = crop(ramp, torch.tensor([[x0, y0, x1, y1]]), size=5, padding=2)[0]
    steps = (torch.arange(5) + 0.5) / 5
    wide, high = x0 - 2 + (x1 - x0 + 4) * steps, y0 - 2 + (y1 - y0 + 4) * steps
    torch.testing.assert_close(found[0], wide.expand(5, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], high[:, None].expand(5, 5), atol=1e-4, rtol=0)


def test_beyond_the_picture_its_border_is_repeated():
    images = noise(1, 3, 16, 16)
    found = crop(images, torch.tensor([[0, 0, 4, 4]]), size=8, padding=2)
    torch.testing.assert_close(found[0, :, 2:6, 2:6], images[0, :, :4, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0, :, :2, :2], images[0, :, :1, :1].expand(3, 2, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 9, 8, 7)])
def test_an_empty_box_is_refused(box):
    with refused("box"):
        crop(noise(1, 3, 16, 16), torch.tensor([box]), size=8)


def test_the_judge_sees_its_box_and_the_padding_alone():
    judge, images, box = shipped_judge(), noise(1, 3, 64, 64), torch.tensor([[20, 24, 40, 50]])
    near = images.clone()
    reach = PADDING + 1  # interpolation looks half a pixel further
    near[..., : 24 - reach, :] = near[..., 50 + reach :, :] = near[..., : 20 - reach] = near[..., 40 + reach :] = 0
    with torch.no_grad():
        seen, seen_near = judge(images, box), judge(near, box)
        inside = judge(images * (torch.arange(64) < 30), box)
    assert all(torch.equal(seen[head], seen_near[head]) for head in seen)
    assert not any(torch.equal(seen[head], inside[head]) for head in seen)


def test_the_heads_read_the_features():
    judge, images, boxes = shipped_judge(), noise(3, 3, 64, 64), torch.tensor([[20, 24, 40, 50]] * 3)
    with torch.no_grad():
        features, logits = judge.features(images, boxes), judge(images, boxes)
    assert features.shape == (3, 128)
    assert all(torch.equal(head(features), logits[name]) for name, head in judge.heads.items())


def test_all_means_every_head():
    judge = Judge({"a": 2, "b": 3}, size=16, width=8)
    images, boxes = noise(6, 3, 16, 16), torch.tensor([[2, 2, 14, 14]]).expand(6, 4)
    with torch.no_grad():
        answers = {head: logits.argmax(1) for head, logits in judge(images, boxes).items()}
    labels = {"a": answers["a"].clone(), "b": answers["b"].clone()}
    labels["a"][0] += 1
    labels["b"][1] += 1
    right = judge.correct(images, boxes, labels)
    assert right["a"].tolist() == [False, True, True, True, True, True]
    assert right["b"].tolist() == [True, False, True, True, True, True]
    assert right["all"].tolist() == [False, False, True, True, True, True]


def test_the_shipped_judge_knows_the_world_and_is_small():
    judge, fresh = shipped_judge(), ToyWorldJudged(300, augment=False, seed=31)
    things = torch.utils.data.default_collate([fresh[i] for i in range(300)])
    right = judge.correct(things["image"], things["box"], {head: things[head] for head in judge.heads})
    assert {head: answers.float().mean().item() >= 0.99 for head, answers in right.items()} == dict.fromkeys(
        right, True
    )
    assert sum(parameter.numel() for parameter in judge.parameters()) <= 500_000
    assert (ROOT / "pretrained_models/toyworld/judge.safetensors").stat().st_size <= 2**20
