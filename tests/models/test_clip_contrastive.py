"""The two towers together: unit vectors, and a space that contrastive training can shape."""

import math

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from ldm.models.clip_image import ClipImageEncoder
from ldm.models.clip_text import ClipTextEncoder
from ldm.models.contrastive import ContrastiveClip
from ldm.models.tokenizer import WordTokenizer


def small_clip() -> ContrastiveClip:
    torch.manual_seed(0)
    tokenizer = WordTokenizer(["red", "green", "blue"], context_length=4)
    text = ClipTextEncoder(5, 4, width=24, layers=1, heads=2, tokenizer=tokenizer)
    return ContrastiveClip(ClipImageEncoder(16, 8, width=32, layers=1, heads=2), text, embed_dim=16)


def test_features_are_unit_vectors_of_the_joint_space():
    clip = small_clip()
    with torch.no_grad():
        image, text = clip(torch.randn(2, 3, 16, 16), clip.tokenizer(["red", "green", "red blue"]))
    assert image.shape == (2, 16)
    assert text.shape == (3, 16)
    assert_close(image.norm(dim=1), torch.ones(2))
    assert_close(text.norm(dim=1), torch.ones(3))


def test_features_are_the_projected_towers():
    clip = small_clip()
    pixels, ids = torch.randn(2, 3, 16, 16), clip.tokenizer(["red", "blue"])
    with torch.no_grad():
        image, text = clip(pixels, ids)
        joint = clip.image_encoder(pixels) @ clip.image_projection.weight.T
        assert_close(image, joint / joint.norm(dim=1, keepdim=True))
        joint = clip.text_encoder.pooled(ids) @ clip.text_projection.weight.T
        assert_close(text, joint / joint.norm(dim=1, keepdim=True))


def test_temperature_starts_as_in_the_paper():
    assert math.isclose(small_clip().logit_scale.exp().item(), 1 / 0.07, rel_tol=1e-6)


def test_it_learns_to_match_colours_to_their_names():
    clip = small_clip()
    colours = torch.eye(3)[:, :, None, None].expand(-1, -1, 16, 16)
    ids = clip.tokenizer(["red", "green", "blue"])
    optimizer = torch.optim.Adam(clip.parameters(), lr=1e-3)
    for _ in range(50):
        image, text = clip(colours + 0.1 * torch.randn(3, 3, 16, 16), ids)
        logits = clip.logit_scale.exp() * image @ text.T
        loss = F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits.T, torch.arange(3))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in clip.parameters())
        optimizer.step()
    with torch.no_grad():
        image, text = clip(colours, ids)
    assert (image @ text.T).argmax(1).tolist() == [0, 1, 2]
    assert loss < 0.1
