import json

import pytest
from PIL import Image

from ldm.runs.jobs import Job, read_jobs
from tests.refusals import assert_line, refused

NEEDS, TAKES = ("image", "mask"), ("exemplar", "weights", "prompt", "seed")


@pytest.fixture
def folder(tmp_path):
    """Pictures a, b and c of three kinds."""
    for number, kind in enumerate(("image", "mask", "exemplar")):
        (tmp_path / kind).mkdir()
        for name in "abc":
            Image.new("RGB", (4, 4), (ord(name), number, 0)).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def write(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_the_three_kinds_of_list_say_the_same(folder):
    image, mask, exemplar = (folder / kind / "a.png" for kind in ("image", "mask", "exemplar"))
    expected = Job("a", image, mask, (exemplar,))
    lists = [
        folder,
        write(
            folder, "jobs.csv", "image,mask,exemplar", *(f"image/{n}.png,mask/{n}.png,exemplar/{n}.png" for n in "abc")
        ),
        write(folder, "jobs.jsonl", *({k: f"{k}/{n}.png" for k in ("image", "mask", "exemplar")} for n in "abc")),
    ]
    for path in lists:
        jobs, wrong = read_jobs(path, NEEDS, TAKES)
        assert wrong == [] and [job.name for job in jobs] == ["a", "b", "c"]
        assert jobs[0].told() == expected.told() and jobs[0].digest() == expected.digest()


def test_everything_that_a_job_can_say(folder):
    row = {"name": "x", "image": "image/a.png", "mask": str(folder / "mask/b.png"), "seed": 0, "prompt": "a, b",
           "exemplar": ["exemplar/a.png", "exemplar/b.png"], "weights": [2, 1.5]}  # fmt: skip
    table = write(folder, "jobs.csv", "seed, name,image,mask,exemplar,weights,prompt", "",
                  f'0,x,image/a.png,{row["mask"]}, exemplar/a.png; exemplar/b.png,2;1.5,"a, b"')  # fmt: skip
    for path in (write(folder, "jobs.jsonl", "", row), table):
        (job,), wrong = read_jobs(path, NEEDS, TAKES)
        assert wrong == []
        assert job.told() == {
            "name": "x",
            "image": folder / "image/a.png",
            "mask": folder / "mask/b.png",
            "exemplars": (folder / "exemplar/a.png", folder / "exemplar/b.png"),
            "weights": (2.0, 1.5),
            "prompt": "a, b",
            "seed": 0,
        }
        assert job.place.endswith(("csv line 3", "jsonl line 2"))


def test_prompts_in_a_folder_are_text_files(folder):
    (folder / "prompt").mkdir()
    (folder / "prompt" / "a.txt").write_text("\ufeffa blue ball\n", encoding="utf-8")
    (folder / "prompt" / "b.txt").write_bytes(b"\xff")
    jobs, wrong = read_jobs(folder, ("image", "prompt"))
    assert [(job.name, job.prompt, job.mask) for job in jobs] == [("a", "a blue ball", None)]
    assert len(wrong) == 2 and "b.txt: not UTF-8 text" in wrong[0] and wrong[1].endswith(", c: prompt: missing")


def test_the_digest_is_of_what_is_asked_for_not_of_what_it_is_called(folder):
    job = Job("a", folder / "image/a.png", folder / "mask/a.png", (folder / "exemplar/a.png",), seed=3)
    other = folder / "other.png"
    other.write_bytes(job.image.read_bytes())
    assert Job("z", other, job.mask, job.exemplars, seed=3, place="here").digest() == job.digest()
    changed = [
        Job("a", folder / "image/b.png", job.mask, job.exemplars, seed=3),
        Job("a", job.image, folder / "mask/b.png", job.exemplars, seed=3),
        Job("a", job.image, None, (job.mask, *job.exemplars), seed=3),
        Job("a", job.image, job.mask, job.exemplars * 2, seed=3),
        Job("a", job.image, job.mask, job.exemplars, (2.0,), seed=3),
        Job("a", job.image, job.mask, job.exemplars, seed=4),
        Job("a", job.image, job.mask, job.exemplars, seed=3, prompt="b"),
        Job("a", job.image, job.mask, job.exemplars, seed=3, source_prompt="b"),
        Job("a", job.image, job.mask, job.exemplars, seed=3, class_id=3),
    ]
    assert len({job.digest(), *(other.digest() for other in changed)}) == 1 + len(changed)
    with refused("none.png"):
        Job("a", folder / "none.png").digest()


GOOD = {"image": "image/a.png", "mask": "mask/a.png"}
WRONG = {
    "no JSON": ("{", "JSON"),
    "no object": ("[1]", "[1]"),
    "deep": ("[" * 100_000, "JSON"),
    "unknown key": ({**GOOD, "exemplars": "a"}, ("exemplars", "exemplar")),
    "not for this script": ({**GOOD, "class_id": 3}, "class_id"),
    "no mask": ({"image": "image/a.png"}, "mask"),
    "an empty mask": ({**GOOD, "mask": ""}, "mask"),
    "missing file": ({**GOOD, "mask": "mask/z.png"}, "mask/z.png"),
    "a folder": ({**GOOD, "image": "image"}, "image"),
    "missing exemplar": ({**GOOD, "exemplar": ["exemplar/a.png", "no.png"]}, "no.png"),
    "no exemplar among some": ({**GOOD, "exemplar": ["exemplar/a.png", None]}, ("exemplar", None)),
    "a number for a path": ({**GOOD, "mask": 3}, ("mask", 3)),
    "seed no number": ({**GOOD, "seed": "three"}, ("seed", "three")),
    "seed a fraction": ({**GOOD, "seed": 3.5}, ("seed", 3.5)),
    "seed a truth": ({**GOOD, "seed": True}, ("seed", True)),
    "seed negative": ({**GOOD, "seed": -1}, ("seed", -1)),
    "seed too large": ({**GOOD, "seed": 2**63}, ("seed", 2**63)),
    "seed with a line in it": ({**GOOD, "seed": "1_0"}, ("seed", "1_0")),
    "seed in other digits": ({**GOOD, "seed": "\u0663"}, ("seed", "\u0663")),
    "seed huge": ({**GOOD, "seed": 10**4000}, ("seed", 60)),
    "weights no numbers": ({**GOOD, "weights": [1, "x"]}, ("weights", "x")),
    "a weight of nothing": ({**GOOD, "weights": [1, 0]}, ("weights", 0)),
    "a weight no number": ({**GOOD, "weights": ["nan", 1]}, ("weights", "nan")),
    "a weight of truth": ({**GOOD, "weights": [True]}, ("weights", True)),
    "a huge weight": ({**GOOD, "weights": [10**400]}, ("weights", 60)),
    "name a path": ({**GOOD, "name": "../a"}, ("name", "../a")),
    "name hidden": ({**GOOD, "name": ".a"}, ("name", ".a")),
    "name a number": ({**GOOD, "name": 7}, ("name", 7)),
    "name no text": ({**GOOD, "name": "a\ud800"}, ("name", "a\\ud800")),
    "name too long": ({**GOOD, "name": "é" * 101}, (200,)),
    "the same name": ({**GOOD, "name": "b"}, ("name", "b", 1)),
}


@pytest.mark.parametrize("line, wanted", WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_told_by_its_number_and_the_others_are_read(folder, line, wanted):
    file = write(folder, "jobs.jsonl", {**GOOD, "name": "b"}, line, {**GOOD, "name": "c"})
    jobs, (error,) = read_jobs(file, NEEDS, TAKES)
    assert [job.name for job in jobs] == ["b", "c"]
    assert_line(error, "jobs.jsonl", 2, wanted)


def test_wrong_lines_of_a_table(folder):
    lines = ["image,mask,seed", "image/a.png,mask/a.png,x", "image/b.png,mask/b.png,1,2", "image/c.png,mask/c.png"]
    jobs, wrong = read_jobs(write(folder, "jobs.csv", *lines), NEEDS, TAKES)
    assert [job.name for job in jobs] == ["c"]
    assert wrong[0].startswith("jobs.csv line 2: seed 'x'")
    assert wrong[1] == "jobs.csv line 3: found 4 values, expected 3 or fewer"


def test_a_folder_with_two_pictures_of_a_name(folder):
    Image.new("L", (4, 4)).save(folder / "mask" / "b.bmp")
    (folder / "mask" / "c.png").unlink()
    (folder / "mask" / "z.png").write_bytes(b"")
    jobs, wrong = read_jobs(folder, NEEDS, TAKES)
    assert [job.name for job in jobs] == ["a"]
    assert [error.split(", ", 1)[1] for error in wrong] == [
        "b: mask: several files have this name, among them b.png", "c: mask: missing", "z: image: missing",
    ]  # fmt: skip


REFUSED = {
    "missing": ("none.csv", None, "none.csv"),
    "another kind": ("jobs.txt", "a", ("jobs.txt", ".csv", ".jsonl")),
    "no text": ("jobs.csv", b"\xff", ("jobs.csv", "UTF-8")),
    "empty": ("jobs.jsonl", "\n", "jobs.jsonl"),
    "a head alone": ("jobs.csv", "image,mask\n", "jobs.csv"),
    "unknown column": ("jobs.csv", "image,mask,sed\n", ("jobs.csv", "sed", "seed")),
    "column twice": ("jobs.csv", "image,mask,image\n", ("jobs.csv", "image")),
    "no column": ("jobs.csv", "image,prompt\n", ("jobs.csv", "mask")),
    "a quote not closed": (
        "jobs.csv",
        'image,mask,prompt\na.png,b.png,"a mug\nc.png,d.png,\n',
        ("jobs.csv", 3),
    ),
    "an endless cell": ("jobs.csv", 'image,mask\n"' + "x" * 200_000, "jobs.csv"),
}


@pytest.mark.parametrize("name, content, wanted", REFUSED.values(), ids=REFUSED)
def test_what_is_no_list_is_refused(tmp_path, name, content, wanted):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(wanted):
        read_jobs(tmp_path / name, NEEDS, TAKES)


def test_defaults_are_for_what_was_not_said(tmp_path):
    job = Job("a", tmp_path / "a.png", prompt="a mug", seed=0)
    paths = (tmp_path / "b.png",)
    filled = job.with_defaults(prompt="a ball", seed=3, class_id=2, exemplars=paths, source_prompt=None)
    assert (filled.prompt, filled.seed, filled.class_id, filled.exemplars) == ("a mug", 0, 2, paths)
    assert filled.source_prompt is None and filled.image == job.image
