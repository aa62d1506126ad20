"""What the editors make of jobs: as single edits do, and what is wrong with one is of that one alone."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ldm.editors.diffedit import DiffEdit
from ldm.editors.mask_inference import EmptyMask
from ldm.editors.repaint import RePaint
from ldm.runs.job_edits import DiffEditJobs, RePaintJobs
from ldm.runs.jobs import Job
from ldm.utils.holes import hole_mask
from ldm.utils.png import read_settings
from tests.editors.test_repaint import FAST as WALK
from tests.editors.test_repaint import pixel_model
from tests.refusals import refused
from tests.tiny import tiny_model, tiny_text_model
from tests.utils.pictures import mask, photo


def apart(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()


def made(maker, jobs):
    return maker.make(jobs, [maker.open(job) for job in jobs])


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
    editor = RePaint(pixel_model(num_classes=5), **WALK, seed=4)
    jobs = [replace(job, class_id=3 - k, seed=None if k else 7) for k, job in enumerate(jobs)]
    pictures = made(RePaintJobs(editor), jobs)
    for k, (class_id, seed) in enumerate([(3, 7), (2, 4)]):
        (alone,) = editor(photo(24, 16, seed=k), mask(24, 16), class_id=class_id, seed=seed).images
        assert apart(pictures[k], alone) <= 1


def test_jobs_of_prompts_and_of_exemplars(jobs, tmp_path):
    editor = RePaint(tiny_text_model(), **WALK, guidance_scale=3.0)
    (picture,) = made(RePaintJobs(editor, negative="a mug"), [replace(jobs[0], prompt="a red ball")])
    (alone,) = editor(photo(24, 16, seed=0), mask(24, 16), prompt="a red ball", negative="a mug").images
    assert apart(picture, alone) <= 1
    editor = RePaint(tiny_model(), **WALK)
    (picture,) = made(RePaintJobs(editor), [replace(jobs[0], exemplars=(tmp_path / "0_exemplar.png",))])
    (alone,) = editor(photo(24, 16, seed=0), mask(24, 16), exemplar=photo(9, 7, seed=10)).images
    assert apart(picture, alone) <= 1


@pytest.mark.parametrize("mask_seed, seeds", [(None, (7, 4)), (2, (2, 2))])
def test_holes_of_a_kind_are_drawn_for_each_job(jobs, mask_seed, seeds):
    editor = RePaint(pixel_model(), **WALK, seed=4)
    maker = RePaintJobs(editor, mask_type="wide", mask_seed=mask_seed)
    for job, own, seed in zip(jobs, (7, None), seeds, strict=True):
        request = maker.open(replace(job, mask=None, seed=own))
        assert (request.mask == hole_mask("wide", (24, 16), seed)).all()


def test_inverted_masks(jobs):
    request = RePaintJobs(RePaint(pixel_model(), **WALK), invert=True).open(jobs[0])
    assert np.array_equal(request.mask[0, 0] == 0, np.asarray(mask(24, 16)) == 255)


def test_what_is_wrong_with_a_job_to_fill_is_wrong_with_it_alone(jobs, tmp_path):
    maker = RePaintJobs(RePaint(pixel_model(), **WALK))
    Image.new("L", (24, 16)).save(tmp_path / "black.png")
    Image.new("L", (24, 16), 255).save(tmp_path / "white.png")
    two = (tmp_path / "0_exemplar.png",) * 2
    for wrong, wanted in [
        ({"mask": None}, "mask"),
        ({"mask": tmp_path / "black.png"}, "black.png"),
        ({"mask": tmp_path / "white.png"}, "mask"),
        ({"mask": tmp_path / "0_exemplar.png"}, ("0_exemplar.png", "9x7", "24x16")),
        ({"class_id": 1}, ("class_id", 1)),
        ({"prompt": "a mug"}, "prompt"),
        ({"exemplars": two}, ("exemplar", 2)),
    ]:
        job = replace(jobs[0], **wrong)
        with refused(wanted):
            (result,) = maker.make([job], [maker.open(job)])
            raise result


# DiffEdit


def test_jobs_are_edited_as_single_edits(jobs, tmp_path):
    editor = DiffEdit(tiny_text_model(), steps=3, n_maps=2, seed=1)
    jobs = [
        replace(jobs[0], mask=None, prompt="a red ball", source_prompt="a mug", seed=5),
        replace(jobs[1], prompt="a mug"),
        replace(jobs[0], mask=None, prompt="a mug", source_prompt="a mug", name="nothing"),
    ]
    pictures = made(DiffEditJobs(editor, tmp_path / "out", negative="a ball"), jobs)
    first = editor(photo(24, 16, seed=0), "a red ball", "a mug", negative="a ball", seed=5).images[0]
    second = editor(photo(24, 16, seed=1), "a mug", negative="a ball", mask=mask(24, 16)).images[0]
    assert apart(pictures[0], first) <= 1 and apart(pictures[1], second) <= 1
    assert isinstance(pictures[2], EmptyMask)
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == {
        "map/nothing.png"
    }
    assert read_settings(tmp_path / "out/map/nothing.png") == {"prompt": "a mug", "source_prompt": "a mug"}


def test_what_is_wrong_with_a_job_to_edit_is_said_as_it_is_opened(jobs, tmp_path):
    maker = DiffEditJobs(DiffEdit(tiny_text_model()), tmp_path)
    Image.new("L", (24, 16)).save(tmp_path / "black.png")
    for wrong, wanted in [
        ({}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "a tree"}, ("a tree", "tree")),
        ({"prompt": "a mug", "source_prompt": "a tree"}, ("a tree", "tree")),
        ({"prompt": "a mug", "mask": tmp_path / "black.png"}, "black.png"),
        ({"prompt": "a mug", "mask": tmp_path / "0_exemplar.png"}, ("0_exemplar.png", "9x7", "24x16")),
        ({"prompt": "a mug", "image": tmp_path / "none.png"}, "none.png"),
    ]:
        with refused(wanted):
            maker.open(replace(jobs[0], **wrong))
