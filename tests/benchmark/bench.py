"""A test bench in the layout of COCOEE, its real pictures, and a mixture of Gaussians for it."""

from pathlib import Path

import numpy as np
import torch

from ldm.benchmark.layout import item_file
from ldm.evaluation.quality_score import Gmm, save_gmm
from tests.benchmark.conftest import Colours
from tests.utils.pictures import mask, photo

IDS = (139, 285, 632, 724, 776)
SIDE = 32


def write_bench(root: Path) -> Path:
    for kind in ("image", "mask", "exemplar"):
        item_file(root, kind, "0").parent.mkdir(parents=True)
    for id in IDS:
        photo(SIDE, SIDE, seed=id).save(item_file(root, "image", f"{id:012d}"))
        mask(SIDE, SIDE, box=(4, 8, 20, 24)).save(item_file(root, "mask", f"{id:012d}"))
        photo(20, 30, seed=id + 1).save(item_file(root, "exemplar", f"{id:012d}"))
    np.save(root / "id_list.npy", np.array(IDS))
    (root / "test_set_GT").mkdir()
    for k in range(6):
        photo(SIDE, SIDE, seed=1000 + k).save(root / "test_set_GT" / f"{k}.png")
    gmm = Gmm(torch.ones(1).double(), torch.zeros(1, 3).double(), 10 * torch.eye(3).double()[None])
    save_gmm(root / "gmm.safetensors", gmm, Colours("clip_vit_b32", "published"), {})
    return root
