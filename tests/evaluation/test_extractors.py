import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision import transforms

from ldm.checkpoints.load import load
from ldm.evaluation.extractors import (
    ClipFeatures,
    DinoFeatures,
    InceptionFeatures,
    LpipsDistance,
    ToyWorldClip,
    full_precision,
)
from ldm.models.lpips import Lpips
from ldm.toyworld.hole_scenes import HoleScenes
from ldm.utils.clip import clip_normalise
from ldm.utils.image import to_pil, to_tensor


@pytest.fixture(scope="module")
def clip():
    return ToyWorldClip(load("toyworld_clip"))


@pytest.fixture(scope="module")
def scenes():
    data = HoleScenes(seed=3, length=2, kind="half")
    return torch.stack([data[0]["image"], data[1]["image"]])


@pytest.fixture(params=[(300, 200), (97, 181), (224, 224), (40, 30)])
def picture(request):
    width, height = request.param
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


class Nothing(torch.nn.Module):
    pass


def test_clip_sees_what_openai_shows_it(picture):
    expected = image_transform(224, is_train=False, resize_mode="shortest", interpolation="bicubic")(picture)
    assert torch.equal(ClipFeatures(Nothing()).prepare(picture), expected)
    assert torch.equal(ClipFeatures(Nothing()).prepare(picture.convert("RGBA")), expected)


def test_dino_sees_what_its_evaluation_shows_it(picture):
    steps = [transforms.Resize(256, interpolation=3), transforms.CenterCrop(224), transforms.ToTensor()]
    statistics = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.equal(DinoFeatures(Nothing()).prepare(picture), transforms.Compose([*steps, statistics])(picture))


def test_inception_sees_what_tensorflow_1_makes_of_a_picture(picture):
    """Pixel i is taken at i x (old size / new size), between its floor and the pixel after: no half pixel anywhere."""
    pixels = np.asarray(picture, dtype=np.float64)
    for axis in (0, 1):
        size = pixels.shape[axis]
        position = np.arange(299) * size / 299
        low = position.astype(int)
        share = np.expand_dims(position - low, tuple(k for k in range(3) if k != axis))
        near, far = pixels.take(low, axis), pixels.take(np.minimum(low + 1, size - 1), axis)
        pixels = near + (far - near) * share
    found = InceptionFeatures(Nothing()).prepare(picture)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), (pixels - 128) / 128, atol=2e-4)


def test_toyworlds_clip_is_not_scaled_to_length_one(clip, scenes):
    picture = to_pil(scenes[0])
    pixels = clip.prepare(picture)
    torch.testing.assert_close(pixels, clip_normalise((to_tensor(picture)[0] + 1) / 2))
    features = clip(pixels[None])
    assert features.shape == (1, 128) and features.norm() > 2
    with torch.no_grad():
        expected = load("toyworld_clip").encode_image(pixels[None])
    torch.testing.assert_close(features / features.norm(), expected)


def test_a_scene_is_nearer_to_itself_than_to_another(clip, scenes):
    noise = 0.02 * torch.randn(scenes.shape, generator=torch.Generator().manual_seed(0))
    same, noisy, other = (clip.distance(scenes, to) for to in (scenes, scenes + noise, scenes.flip(0)))
    assert same.dtype == torch.float64 and same.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (same < noisy).all() and (noisy < 0.3 * other).all() and (other < 2).all()
    assert other[0] == pytest.approx(other[1].item(), abs=1e-6)
    apart = 1 - torch.cosine_similarity(*clip(clip.prepare_all(scenes)), dim=0)
    assert other[0].item() == pytest.approx(apart.item(), abs=1e-6)


def test_pictures_of_any_size_are_seen_at_the_size_of_the_encoder(clip, scenes):
    enlarged = scenes.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert clip.distance(enlarged, scenes).max() < 0.05 * clip.distance(scenes, scenes.flip(0)).min()


def test_a_report_tells_extractors_apart(clip):
    all_of_them = [clip, *(kind(Nothing(), "w") for kind in (ClipFeatures, DinoFeatures, InceptionFeatures))]
    with torch.device("meta"):
        all_of_them += [LpipsDistance(Lpips(net), "w") for net in ("alex", "vgg")]
    abouts = [extractor.about for extractor in all_of_them]
    assert len({about["extractor"] for about in abouts}) == len(abouts)
    assert all(about.keys() == {"extractor", "weights", "preprocessing", "convention"} for about in abouts)
    assert "Inception" in abouts[3]["extractor"] and "CLIP" in abouts[1]["extractor"]  # both have been called FID
    assert all(about["weights"] == "w" for about in abouts[1:])


def test_convolutions_are_not_rounded_and_the_choice_is_given_back():
    def choice():
        return torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32

    before = choice()
    with full_precision():
        assert choice() == (True, False)
    assert choice() == before
