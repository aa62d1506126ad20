"""A contact sheet shows the items as they are."""

import numpy as np
import torch
from PIL import Image

from ldm.data.preview import views, words, write_sheet
from ldm.utils.clip import clip_normalise
from ldm.utils.contact_sheet import MARGIN
from tests.refusals import refused


def item() -> dict:
    """White above, black below; the left half is the hole; the exemplar is a quarter grey."""
    image = torch.ones(3, 64, 64)
    image[:, 32:] = -1
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    return {
        "image": image,
        "mask": mask,
        "exemplar": clip_normalise(torch.full((3, 32, 32), 0.25)),
        "image_id": "seven",
    }


def test_the_sheet_shows_image_mask_masked_image_and_exemplar(tmp_path):
    assert write_sheet([item()] * 3, tmp_path / "sheet.png", count=2) == ["seven", "seven"]
    sheet = np.array(Image.open(tmp_path / "sheet.png")).astype(int)
    step = 256 + MARGIN
    assert sheet.shape[1] == 4 * step + MARGIN and 2 * step < sheet.shape[0] < 3 * step
    for row in (1, 2):
        top = sheet.shape[0] - row * step
        cells = [sheet[top : top + 256, left : left + 256] for left in range(MARGIN, sheet.shape[1], step)]
        corners = [[cell[y, x].tolist() for y in (60, 200) for x in (60, 200)] for cell in cells]
        white, black = [255] * 3, [0] * 3
        assert corners[0] == [white, white, black, black]
        assert corners[1] == [[255, 128, 128], white, [128, 0, 0], black]
        assert corners[2] == [[128] * 3, white, [128] * 3, black]
        assert corners[3] == [[64] * 3] * 4


def test_other_items_show_what_they_have():
    caption = {"pixels": torch.zeros(3, 8, 8), "caption": "a red ball"}
    assert list(views(caption)) == ["pixels as CLIP sees it"] and words(caption) == "a red ball"
    judged = {"image": torch.zeros(3, 8, 8), "class": 3, "box": torch.zeros(4)}
    assert list(views(judged)) == ["image"] and words(judged) == "class 3"


def test_what_cannot_be_shown_is_refused(tmp_path):
    with refused("list", "z"):
        write_sheet([{"z": torch.zeros(4, 8, 8)}], tmp_path / "sheet.png")
    with refused("count", 0):
        write_sheet([item()], tmp_path / "sheet.png", count=0)
    with refused(tmp_path / "nowhere"):
        write_sheet([item()], tmp_path / "nowhere" / "sheet.png")
    assert list(tmp_path.iterdir()) == []
