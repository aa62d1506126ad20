import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from open_clip.transform import image_transform
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision import transforms

from ldm.checkpoints.open import load
from ldm.evaluation.extractors import (
    KINDS,
    ClipFeatures,
    DinoFeatures,
    InceptionFeatures,
    LpipsDistance,
    ToyWorldClip,
    full_precision,
    open_extractor,
    random_values,
    sha256,
)
from ldm.models.lpips import Lpips
from ldm.toyworld.scenes import HoleScenes
from ldm.utils.clip import clip_normalise
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.project import ROOT
from tests.classifiers import classifier
from tests.refusals import assert_mentions, refusal_of, refused


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


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """As `random_values`, but norms are no identity: their tensors cannot be confused unseen."""
    values = random_values(shapes)
    for seed, (name, value) in enumerate(sorted(values.items())):
        if value.ndim == 1:
            values[name] = value + 0.1 * noise(*value.shape, seed=seed).clamp(-3, 3)
    return values


def shapes_of(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def test_clip_of_openais_file(tmp_path):
    """Half precision, the text tower beside it, and a projection that is multiplied from the right."""
    with torch.device("meta"):
        peer = VisionTransformer(224, 32, 768, 12, 12, 4.0, act_layer=QuickGELU)
    tensors = {name: value.half() for name, value in filled(shapes_of(peer)).items()}
    rest = {"logit_scale": torch.tensor(4.6), "transformer.resblocks.0.ln_1.bias": torch.zeros(512).half()}
    rest |= {"input_resolution": torch.tensor(224), "text_projection": torch.zeros(512, 512).half()}
    torch.save({f"visual.{name}": value for name, value in tensors.items()} | rest, tmp_path / "ViT-B-32.pt")
    peer.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    extractor, pixels = open_extractor("clip_vit_b32", tmp_path / "ViT-B-32.pt"), noise(2, 3, 224, 224)
    with torch.no_grad():
        expected = peer.eval()(pixels)
    found = extractor(pixels)
    assert found.shape == (2, 512) and (found[0] - found[1]).std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert extractor.about["weights"] == f"sha256 {sha256(tmp_path / 'ViT-B-32.pt')}"


def test_clip_of_hugging_faces_file(tmp_path):
    with torch.device("meta"):
        peer = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig())
    tensors = filled(shapes_of(peer))
    peer.load_state_dict(tensors, assign=True)
    vision = peer.vision_model
    for part in (vision, vision.embeddings):  # its buffer of whole numbers has no values yet
        if hasattr(part, "position_ids"):
            part.position_ids = torch.arange(50)[None]
    published = {f"vision_model.{n}": t for n, t in vision.state_dict().items() if t.is_floating_point()}
    published |= {"visual_projection.weight": tensors["visual_projection.weight"]}
    published |= {"vision_model.embeddings.position_ids": torch.arange(50)[None], "logit_scale": torch.tensor(4.6)}
    save_file({name: value.contiguous() for name, value in published.items()}, tmp_path / "model.safetensors")
    extractor, pixels = open_extractor("clip_vit_b32", tmp_path / "model.safetensors"), noise(2, 3, 224, 224)
    with torch.no_grad():
        expected = peer.eval()(pixels).image_embeds
    torch.testing.assert_close(extractor(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counters", [True, False], ids=["torch-fidelity", "pytorch-fid"])
def test_inception_of_fid(tmp_path, counters):
    tensors = filled(shapes_of(InceptionFeatures.architecture()))
    tensors |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    norms = {name.replace("running_mean", "num_batches_tracked") for name in tensors if "running_mean" in name}
    complete = tensors | dict.fromkeys(norms, torch.tensor(0))
    torch.save(complete, tmp_path / "complete.pth")
    torch.save(complete if counters else tensors, tmp_path / "inception.pth")
    peer = FeatureExtractorInceptionV3("peer", ["2048"], tmp_path / "complete.pth").eval()
    extractor = open_extractor("inception", tmp_path / "inception.pth")
    for width, height in ((120, 200), (400, 310)):
        pixels = (noise(height, width, 3) * 60 + 128).clamp(0, 255).to(torch.uint8)
        (expected,) = peer(pixels.permute(2, 0, 1)[None])
        found = extractor(extractor.prepare(Image.fromarray(pixels.numpy()))[None])
        assert found.shape == (1, 2048) and found.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def dino(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """ViT-S/16 by the formulas of 2010.11929, with the names of DINO's file."""

    def norm(x, name):
        return F.layer_norm(x, (384,), w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16).flatten(2).mT
    x = torch.cat([w["cls_token"].expand(len(x), 1, 384), x], dim=1) + w["pos_embed"]
    for k in range(12):
        qkv = linear(norm(x, f"blocks.{k}.norm1"), f"blocks.{k}.attn.qkv")
        q, k_, v = qkv.unflatten(-1, (3, 6, 64)).permute(2, 0, 3, 1, 4)
        heads = (q @ k_.mT / 64**0.5).softmax(-1) @ v
        x = x + linear(heads.transpose(1, 2).flatten(2), f"blocks.{k}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"blocks.{k}.norm2"), f"blocks.{k}.mlp.fc1"))
        x = x + linear(hidden, f"blocks.{k}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def test_dino_of_its_file(tmp_path):
    tensors = filled(shapes_of(DinoFeatures.architecture()))
    torch.save(tensors, tmp_path / "dino.pth", _use_new_zipfile_serialization=False)
    pixels = noise(2, 3, 224, 224)
    found = open_extractor("dino_vits16", tmp_path / "dino.pth")(pixels)
    assert found.shape == (2, 384) and (found[0] - found[1]).std() > 0.1
    torch.testing.assert_close(found, dino(pixels, tensors), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["lpips_alex", "lpips_vgg"])
def test_lpips_of_torchvisions_file(tmp_path, kind):
    features = classifier(kind.removeprefix("lpips_"))
    tensors = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    torch.save(tensors | {"classifier.6.bias": torch.ones(1000)}, tmp_path / "file.pth")
    distance, a, b = open_extractor(kind, tmp_path / "file.pth"), *noise(2, 2, 3, 48, 48).clamp(-1, 1)
    assert isinstance(distance, LpipsDistance) and distance(a, b).shape == (2,)
    assert torch.equal(distance(a, b), distance.network(a, b)) and distance(a, b).min() > 0.01
    for own, theirs in zip(distance.network.features, features, strict=False):
        for x, y in zip(own.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(x, y)


@cache
def opened(kind: str):
    return open_extractor(kind, "random")


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_are_always_the_same_and_say_so(kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = opened(kind), open_extractor(kind, "random")
    assert torch.equal(torch.get_rng_state(), before)
    picture = Image.fromarray((noise(60, 80, 3) * 60 + 128).clamp(0, 255).to(torch.uint8).numpy())
    if isinstance(first, LpipsDistance):
        a, b = noise(2, 2, 3, 48, 48).clamp(-1, 1)
        one, two = first(a, b), second(a, b)
        assert one.min() > 0.001 and first(a, a).tolist() == [0, 0]
    else:
        pixels = torch.stack([first.prepare(picture), first.prepare(picture.rotate(90))])
        one, two = first(pixels), second(pixels)
        assert (one[0] - one[1]).abs().mean() > 0.001 and one.isfinite().all()
    assert torch.equal(one, two)
    assert first.about["weights"].startswith("random") and "mean nothing" in first.about["weights"]


def test_toyworlds_weights_ship():
    extractor = open_extractor("toyworld_clip")
    assert extractor.about["weights"] == f"sha256 {sha256(ROOT / 'pretrained_models/toyworld/clip.safetensors')}"
    assert not any(parameter.requires_grad for parameter in extractor.network.parameters())
    pixels = extractor.prepare_all(noise(2, 3, 64, 64).clamp(-1, 1))
    assert not torch.allclose(extractor(pixels), opened("toyworld_clip")(pixels))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "toyworld_clip"])
def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm.utils.project.ROOT", tmp_path)
    message = refusal_of(open_extractor, kind)
    assert_mentions(message, tmp_path / "pretrained_models" / KINDS[kind].file)
    assert KINDS[kind].file in message.split("https://")[1]
    assert f"`{KINDS[kind].file}`" in (ROOT / "pretrained_models/README.md").read_text(encoding="utf-8")


def test_what_is_wrong_is_said(tmp_path):
    with refused("extractor", "clip", "clip_vit_b32", "inception", "dino_vits16"):
        open_extractor("clip")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    for kind in KINDS:
        with refused("linear.pth"):
            open_extractor(kind, tmp_path / "linear.pth")
    tensors = filled(shapes_of(DinoFeatures.architecture()))
    del tensors["norm.bias"]
    torch.save(tensors | {"head.weight": torch.ones(1)}, tmp_path / "dino.pth")
    with refused("dino.pth", "norm.bias", "head.weight"):
        open_extractor("dino_vits16", tmp_path / "dino.pth")


def test_an_extractor_leaves_no_graph_behind():
    pixels = noise(1, 3, 64, 64).requires_grad_()
    assert not opened("toyworld_clip")(pixels).requires_grad
    assert not opened("lpips_alex")(pixels, copy.deepcopy(pixels)).requires_grad
