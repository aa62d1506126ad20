import numpy as np
import torch

from ldm.toyworld.exemplar_scenes import PADDING, CrossExemplars, collate
from ldm.toyworld.render import CLASSES, COLOURS, render_scene, scene_id


def pixels(image: torch.Tensor) -> np.ndarray:
    return ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_the_hole_is_the_padded_box_of_a_thing_in_the_scene():
    data = CrossExemplars(seed=7, length=12)
    for i in range(12):
        item, scene = data[i], render_scene(np.random.default_rng(scene_id(7, "cross", i)))
        assert np.array_equal(pixels(item["image"]), scene.image)
        x0, y0, x1, y1 = box = tuple(item["box"].tolist())
        assert box in [thing.box for thing in scene.objects]
        hole = torch.zeros(1, 64, 64)
        hole[:, max(y0 - PADDING, 0) : y1 + PADDING, max(x0 - PADDING, 0) : x1 + PADDING] = 1
        assert torch.equal(item["mask"], hole)
        visible = next(thing.mask for thing in scene.objects if thing.box == box)
        assert np.array_equal(item["visible"][0].numpy(), visible)


def test_the_exemplar_is_another_thing_cut_out_of_another_scene():
    data = CrossExemplars(seed=7, length=12)
    for i in range(12):
        item, scene = data[i], render_scene(np.random.default_rng(scene_id(7, "cross", i)))
        old = next(thing for thing in scene.objects if thing.box == tuple(item["box"].tolist()))
        assert CLASSES[item["class"]] != old.cls
        assert list(COLOURS)[item["colour"]] != old.colour
        x0, y0, x1, y1 = item["donor_box"].tolist()
        donor = pixels(item["donor"])
        cut = donor[max(y0 - PADDING, 0) : y1 + PADDING, max(x0 - PADDING, 0) : x1 + PADDING]
        assert np.array_equal(np.asarray(item["exemplar"]), cut)
        assert not np.array_equal(donor, scene.image)


def test_a_longer_set_or_another_seed():
    short, long, other = CrossExemplars(1, 2), CrossExemplars(1, 5), CrossExemplars(2, 2)
    assert torch.equal(short[1]["image"], long[1]["image"])
    assert not torch.equal(short[1]["image"], other[1]["image"])


def test_a_batch_keeps_its_exemplars_apart():
    data = CrossExemplars(1, 3)
    batch = collate([data[i] for i in range(3)])
    assert batch["image"].shape == (3, 3, 64, 64) and batch["mask"].shape == (3, 1, 64, 64)
    assert batch["box"].shape == (3, 4) and batch["class"].dtype == torch.int64
    assert [np.array_equal(a, data[i]["exemplar"]) for i, a in enumerate(batch["exemplar"])] == [True] * 3


def test_a_blob_is_an_uneven_round_hole_about_the_thing():
    data = CrossExemplars(seed=7, length=24)
    shares = []
    for item in (data[i] for i in range(24)):
        x0, y0, x1, y1 = item["box"].tolist()
        blob = item["blob"]
        assert blob.unique().tolist() == [0, 1]
        inside = blob[:, y0:y1, x0:x1]
        shares.append(inside.mean().item())
        assert inside[0, (y1 - y0) // 2, (x1 - x0) // 2] == 1
        assert item["visible"][blob > 0].sum() > 0.8 * item["visible"].sum()
        assert not torch.equal(blob, item["mask"])
    assert 0.8 < sum(shares) / len(shares) < 0.99  # corners of the box stick out


def test_the_exemplars_thing_is_known_in_its_scene():
    for item in (CrossExemplars(seed=7, length=12)[i] for i in range(12)):
        x0, y0, x1, y1 = item["donor_box"].tolist()
        rows, columns = (item["donor_visible"][0].amax(dim).nonzero()[:, 0] for dim in (1, 0))
        assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == [x0, y0, x1, y1]
