import pytest
import torch

from ldm.checkpoints.load import load
from ldm.data.toyworld_holes import HoleScenes
from ldm.evaluation.features import ClipDistance


@pytest.fixture(scope="module")
def distance():
    return ClipDistance(load("toyworld_clip"))


@pytest.fixture(scope="module")
def scenes():
    data = HoleScenes(seed=3, length=2, kind="half")
    return torch.stack([data[0]["image"], data[1]["image"]])


def test_embeddings_have_length_one(distance, scenes):
    features = distance.features(scenes)
    assert features.shape == (2, 128)
    assert features.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_a_scene_is_nearer_to_itself_than_to_another(distance, scenes):
    noise = 0.02 * torch.randn(scenes.shape, generator=torch.Generator().manual_seed(0))
    same, noisy, other = (distance(scenes, to) for to in (scenes, scenes + noise, scenes.flip(0)))
    assert same.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (same < noisy).all() and (noisy < 0.3 * other).all() and (other < 2).all()
    assert other[0] == pytest.approx(other[1].item(), abs=1e-6)
    apart = 1 - torch.cosine_similarity(*distance.features(scenes), dim=0)
    assert other[0].item() == pytest.approx(apart.item(), abs=1e-6)


def test_pictures_of_any_size_are_seen_at_the_size_of_the_encoder(distance, scenes):
    enlarged = scenes.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert distance(enlarged, scenes).max() < 0.05 * distance(scenes, scenes.flip(0)).min()
