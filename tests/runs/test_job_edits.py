"""What the editors make of jobs: as single edits do, and what is wrong with one is of that one alone."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ldm.presets import diffedit_editor, repaint_editor
from ldm.runs.job_edits import diffedit_work, repaint_work
from ldm.runs.jobs import Job
from ldm.runs.outputs import read_settings
from ldm.utils.errors import UserError
from ldm.utils.holes import hole_mask
from tests.editors.test_repaint import FAST as WALK
from tests.editors.test_repaint import pixel_model
from tests.tiny import tiny_model, tiny_text_model
from tests.utils.pictures import mask, photo


def apart(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()


def made(work, jobs):
    open_job, make = work
    return make([open_job(job) for job in jobs])


@pytest.fixture
def jobs(tmp_path):
    """Two jobs of pictures that a 16-pixel model and a tiny latent one take, each with a mask."""
    for k in range(2):
        photo(24, 16, seed=k).save(tmp_path / f"{k}.png")
        mask(24, 16).save(tmp_path / f"{k}_mask.png")
        photo(9, 7, seed=10 + k).save(tmp_path / f"{k}_exemplar.png")
    return [Job(str(k), tmp_path / f"{k}.png", tmp_path / f"{k}_mask.png") for k in range(2)]


# RePaint


def test_jobs_are_filled_as_single_edits(jobs):
    editor = repaint_editor(pixel_model(num_classes=5), **WALK, seed=4)
    jobs = [replace(job, class_id=3 - k, seed=None if k else 7) for k, job in enumerate(jobs)]
    pictures = made(repaint_work(editor), jobs)
    for k, (class_id, seed) in enumerate([(3, 7), (2, 4)]):
        (alone,) = editor(photo(24, 16, seed=k), mask(24, 16), class_id=class_id, seed=seed).images
        assert apart(pictures[k], alone) <= 1


def test_jobs_of_prompts_and_of_exemplars(jobs, tmp_path):
    editor = repaint_editor(tiny_text_model(), **WALK, guidance_scale=3.0)
    (picture,) = made(repaint_work(editor, negative="a mug"), [replace(jobs[0], prompt="a red ball")])
    (alone,) = editor(photo(24, 16, seed=0), mask(24, 16), prompt="a red ball", negative="a mug").images
    assert apart(picture, alone) <= 1
    editor = repaint_editor(tiny_model(), **WALK)
    (picture,) = made(repaint_work(editor), [replace(jobs[0], exemplars=(tmp_path / "0_exemplar.png",))])
    (alone,) = editor(photo(24, 16, seed=0), mask(24, 16), exemplar=photo(9, 7, seed=10)).images
    assert apart(picture, alone) <= 1


@pytest.mark.parametrize("mask_seed, seeds", [(None, (7, 4)), (2, (2, 2))])
def test_holes_of_a_kind_are_drawn_for_each_job(jobs, mask_seed, seeds):
    editor = repaint_editor(pixel_model(), **WALK, seed=4)
    open_job, _ = repaint_work(editor, mask_type="wide", mask_seed=mask_seed)
    for job, own, seed in zip(jobs, (7, None), seeds, strict=True):
        region, _, _ = open_job(replace(job, mask=None, seed=own))
        assert (region.mask == hole_mask("wide", (24, 16), seed)).all()


def test_inverted_masks(jobs):
    region, _, _ = repaint_work(repaint_editor(pixel_model(), **WALK), invert=True)[0](jobs[0])
    assert np.array_equal(region.mask[0, 0] == 0, np.asarray(mask(24, 16)) == 255)


def test_what_is_wrong_with_a_job_to_fill_is_said_as_it_is_opened(jobs, tmp_path):
    open_job, _ = repaint_work(repaint_editor(pixel_model(), **WALK))
    Image.new("L", (24, 16)).save(tmp_path / "black.png")
    Image.new("L", (24, 16), 255).save(tmp_path / "white.png")
    two = (tmp_path / "0_exemplar.png",) * 2
    for wrong, message in [
        ({"mask": None}, "no mask"),
        ({"mask": tmp_path / "black.png"}, "mask .*black.png: nothing is selected"),
        ({"mask": tmp_path / "white.png"}, "mask: everything is selected"),
        ({"mask": tmp_path / "0_exemplar.png"}, "0_exemplar.png: is 9x7 and the image 24x16"),
        ({"class_id": 1}, "class_id 1: this model knows no classes"),
        ({"prompt": "a mug"}, "prompt: this model takes none"),
        ({"exemplars": two}, "exemplar: there are 2, RePaint takes one"),
    ]:
        with pytest.raises(UserError, match=message):
            open_job(replace(jobs[0], **wrong))


# DiffEdit


def test_jobs_are_edited_as_single_edits(jobs, tmp_path):
    editor = diffedit_editor(tiny_text_model(), steps=3, n_maps=2, seed=1)
    jobs = [
        replace(jobs[0], mask=None, prompt="a red ball", source_prompt="a mug", seed=5),
        replace(jobs[1], prompt="a mug"),
        replace(jobs[0], mask=None, prompt="a mug", source_prompt="a mug", name="nothing"),
    ]
    pictures = made(diffedit_work(editor, tmp_path / "out", negative="a ball"), jobs)
    first = editor(photo(24, 16, seed=0), "a red ball", "a mug", negative="a ball", seed=5).images[0]
    second = editor(photo(24, 16, seed=1), "a mug", negative="a ball", mask=mask(24, 16)).images[0]
    assert apart(pictures[0], first) <= 1 and apart(pictures[1], second) <= 1
    assert isinstance(pictures[2], UserError) and "the inferred mask is empty" in str(pictures[2])
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == {
        "map/nothing.png"
    }
    assert read_settings(tmp_path / "out/map/nothing.png") == {"prompt": "a mug", "source_prompt": "a mug"}


def test_what_is_wrong_with_a_job_to_edit_is_said_as_it_is_opened(jobs, tmp_path):
    open_job, _ = diffedit_work(diffedit_editor(tiny_text_model()), tmp_path)
    Image.new("L", (24, 16)).save(tmp_path / "black.png")
    for wrong, message in [
        ({}, "prompt: is empty, expected what the picture is to show"),
        ({"prompt": " "}, "prompt: is empty"),
        ({"prompt": "a tree"}, "prompt 'a tree': unknown word 'tree'"),
        ({"prompt": "a mug", "source_prompt": "a tree"}, "prompt 'a tree': unknown word 'tree'"),
        ({"prompt": "a mug", "mask": tmp_path / "black.png"}, "black.png: nothing is selected"),
        ({"prompt": "a mug", "mask": tmp_path / "0_exemplar.png"}, "is 9x7 and the image 24x16"),
        ({"prompt": "a mug", "image": tmp_path / "none.png"}, "none.png: no such file"),
    ]:
        with pytest.raises(UserError, match=message):
            open_job(replace(jobs[0], **wrong))
