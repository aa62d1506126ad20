import numpy as np
import pytest
import torch

from ldm.utils.holes import ALIASES, HOLES, PAPER, hole_mask, is_random
from ldm.utils.mask import mask_box
from tests.refusals import refused

DRAWN = tuple(kind for kind in HOLES if is_random(kind))
REGULAR = tuple(kind for kind in HOLES if not is_random(kind))
SIZES = [(256, 256), (64, 64), (8, 8), (9, 8), (8, 301), (97, 61)]


def shares(kind: str, size: tuple[int, int], seeds: int = 60) -> np.ndarray:
    return np.array([hole_mask(kind, size, seed).mean().item() for seed in range(seeds)])


@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_at_any_size_something_is_known_and_something_is_not(kind, size):
    for seed in range(12 if kind in DRAWN else 1):
        hole = hole_mask(kind, size, seed)
        assert (hole.shape, hole.dtype) == ((1, 1, *size[::-1]), torch.float32)
        assert 0 < hole.mean() < 1 and ((hole == 0) | (hole == 1)).all()


@pytest.mark.parametrize("kind", DRAWN)
def test_what_is_drawn_is_a_function_of_the_seed_alone(kind):
    masks = [hole_mask(kind, (64, 48), seed) for seed in range(20)]
    np.random.seed(0)  # nobody's global state matters
    torch.manual_seed(0)
    assert all(torch.equal(mask, hole_mask(kind, (64, 48), seed)) for seed, mask in enumerate(masks))
    assert len({mask.numpy().tobytes() for mask in masks}) == 20
    assert not torch.equal(masks[0], hole_mask("narrow" if kind != "narrow" else "wide", (64, 48), 0))


def test_the_shares_of_what_is_drawn():
    wide, narrow, brush = (shares(kind, (128, 128)) for kind in ("wide", "narrow", "brush"))
    for share in (wide, narrow, brush):
        assert 0.15 < share.mean() < 0.35 and share.max() <= 0.5
    assert wide.std() > narrow.std()  # one stroke or five, of any width


def test_narrow_is_thin_and_wide_is_thick():

    def core(kind: str) -> float:
        """The share of a hole that is left when the pixels at its edge are taken away."""
        left = []
        for seed in range(30):
            hole = hole_mask(kind, (128, 128), seed)
            eroded = 1 - torch.nn.functional.max_pool2d(1 - hole, 7, stride=1, padding=3)
            left.append(eroded.sum() / hole.sum())
        return float(np.mean(left))

    narrow, brush, wide = map(core, ("narrow", "brush", "wide"))
    assert narrow < 0.25 < brush < wide and wide > 0.6


@pytest.mark.parametrize("kind", DRAWN)
def test_a_seed_draws_the_same_at_every_size(kind):
    for seed in range(8):
        small, large = (hole_mask(kind, (side, side), seed) for side in (64, 256))
        assert (torch.nn.functional.avg_pool2d(large, 4) - small).abs().mean() < 0.06


def test_a_wide_mask_is_sometimes_boxes():
    filled = 0
    for seed in range(60):
        hole = hole_mask("wide", (128, 128), seed)
        x0, y0, x1, y1 = mask_box(hole)
        filled += bool(hole[..., y0:y1, x0:x1].all())
    assert 2 <= filled <= 15  # 0.3 / 1.3 are boxes, a third of them one alone


@pytest.mark.parametrize("width, height", SIZES)
def test_the_lattices_are_exact(width, height):
    known = {kind: 1 - hole_mask(kind, (width, height))[0, 0] for kind in REGULAR}
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    assert torch.equal(known["super_resolve"], ((y % 2 == 0) & (x % 2 == 0)).float())
    assert torch.equal(known["alternate_lines"], ((y % 2 == 0) & (x >= 0)).float())
    assert torch.equal(known["half"], ((x < width // 2) & (y >= 0)).float())
    rows, columns = known["expand"].amax(1).nonzero()[:, 0].tolist(), known["expand"].amax(0).nonzero()[:, 0].tolist()
    assert known["expand"].sum() == len(rows) * len(columns) == round(height / 4) * round(width / 4)
    for at, side in ((rows, height), (columns, width)):
        assert abs(at[0] - (side - 1 - at[-1])) <= 1


def test_at_256_expand_is_the_originals_64():
    hole = hole_mask("expand", (256, 256))[0, 0]
    assert not hole[96:160, 96:160].any() and hole.sum() == 256**2 - 64**2


@pytest.mark.parametrize("kind", REGULAR)
def test_the_others_do_not_know_a_seed(kind):
    assert torch.equal(hole_mask(kind, (20, 30), 1), hole_mask(kind, (20, 30), 2))


def test_the_originals_names():
    assert set(ALIASES.values()) == set(PAPER) <= set(HOLES)
    for theirs, ours in ALIASES.items():
        assert torch.equal(hole_mask(theirs, (40, 32), 3), hole_mask(ours, (40, 32), 3))


BAD = {
    "unknown": ("thin2", (64, 64), ("thin2", "wide", "narrow", "super_resolve")),
    "narrow picture": ("half", (7, 64), ("half", "7x64", 8)),
    "flat picture": ("thick", (64, 1), ("wide", "64x1", 8)),
}


@pytest.mark.parametrize("kind, size, wanted", BAD.values(), ids=BAD)
def test_bad_input(kind, size, wanted):
    with refused(wanted):
        hole_mask(kind, size)
