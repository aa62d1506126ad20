"""scripts/diffedit.py with a list of jobs, from the command line to its files."""

import numpy as np
import pytest
from PIL import Image

from ldm.utils.png import read_settings
from tests.cli.outputs import pixels, written
from tests.refusals import assert_mentions, assert_refused, mentions
from tests.utils.pictures import mask, photo

SIZES = [(24, 16), (32, 16), (24, 16)]


@pytest.fixture
def edit(diffedit, tmp_path, files):
    """Run the script with a list of these lines; pictures 0 to 2 and mask.png are beside it."""
    for k, size in enumerate(SIZES):
        photo(*size, seed=k).save(files / f"{k}.png")
    mask(*SIZES[0]).save(files / "mask.png")

    def run(*lines: str, **flags: object) -> tuple[int, str, str]:
        (files / "jobs.csv").write_text("\n".join(("image,name,prompt,source_prompt,mask,seed", *lines)))
        absent = dict.fromkeys(("image", "prompt", "source_prompt"))
        return diffedit(**{**absent, "jobs": files / "jobs.csv", **flags})

    return run


LINES = ("0.png,,a blue ball,a red ball,,5", "1.png,second,a mug,,,", "2.png,,a mug,,mask.png,")


def test_each_is_as_its_single_run(edit, diffedit, tmp_path, files):
    code, out, err = edit(*LINES, precision="full", scale=3.0, negative_prompt="a ball")
    assert (code, err) == (0, "")
    assert out.startswith(
        "3 jobs, 5 steps, encoded to 0.8, guidance 3, 16 evaluations a picture, precision full, cpu\n"
    )
    assert written(tmp_path / "out") == {"run.json", *(f"results/{name}.png" for name in ("0", "second", "2"))}
    told = {"scale": 3.0, "negative_prompt": "a ball", "source_prompt": None}
    for k, name, own in [
        (0, "0", {"prompt": "a blue ball", "source_prompt": "a red ball", "seed": 5}),
        (1, "second", {"prompt": "a mug"}),
        (2, "2", {"prompt": "a mug", "mask_path": files / "mask.png"}),
    ]:
        assert diffedit(image=files / f"{k}.png", outdir=tmp_path / name, **{**told, **own})[0] == 0
        one, other = tmp_path / f"out/results/{name}.png", tmp_path / name / f"results/{k}_0000.png"
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
        assert (pixels(one) != pixels(files / f"{k}.png")).any()
    told = read_settings(tmp_path / "out/results/0.png")
    assert {"prompt": "a blue ball", "source_prompt": "a red ball", "seed": 5}.items() <= told.items()


def test_it_goes_on_where_it_stopped(edit, tmp_path):
    assert edit(*LINES)[0] == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "out/results").iterdir()}
    lost = tmp_path / "out/results/second.png"
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in whole if path != lost}
    assert edit(*LINES)[0] == 0
    assert {path: path.read_bytes() for path in whole} == whole
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_what_is_wrong_is_told_with_its_line_and_the_others_are_made(edit, tmp_path, files):
    Image.new("L", SIZES[0]).save(files / "black.png")
    wrong = [
        "none.png,,a mug,,,",
        "0.png,unknown,a tree,,,",
        "0.png,black,a mug,,black.png,",
        "0.png,same,a mug,a mug,,",
    ]
    code, out, err = edit(LINES[0], *wrong, LINES[1])
    assert code == 4
    assert written(tmp_path / "out") == {"run.json", "results/0.png", "results/second.png", "map/same.png"}
    for line, wanted in [
        (3, "none.png"),
        (4, ("a tree", "tree")),
        (5, "black.png"),
        (6, "a mug"),
    ]:
        (told,) = [told for told in err.splitlines() if mentions(told, f"jobs.csv line {line}")]
        assert_mentions(told, wanted)
    assert err.splitlines()[-1].startswith("error: ") and "Traceback" not in err


def test_a_prompt_for_all_that_have_none(edit, tmp_path):
    assert edit("0.png,,a blue ball,a red ball,,5", "1.png,second,,,,", prompt="a mug")[0] == 0
    said = [read_settings(tmp_path / f"out/results/{name}.png")["prompt"] for name in ("0", "second")]
    assert said == ["a blue ball", "a mug"]


def test_a_folder_of_another_run_is_refused(edit, tmp_path):
    assert edit(*LINES)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for flags, key in (({"scale": 2.0}, "guidance_scale"), ({"negative_prompt": "a mug"}, "negative")):
        assert_refused(edit(*LINES, **flags), key, stdout=True)
    code, _, err = edit("0.png,,a red ball,a red ball,,5", *LINES[1:])  # the job of this name is another
    assert code == 4 and "jobs.csv line 2" in err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "flags, wanted",
    [
        ({"image": "0.png"}, ("--image", "--jobs")),
        ({"mask_path": "mask.png"}, ("--mask", "--jobs")),
        ({"batch": 0}, ("--batch", 0)),
        ({"steps": 0, "ddim_steps": None}, ("steps", 0)),
        ({"jobs": "none.csv"}, "none.csv"),
        ({"prompt": "a tree"}, ("a tree", "tree")),
    ],
)
def test_wrong_flags(edit, tmp_path, flags, wanted):
    assert_refused(edit(*LINES, **flags), wanted)
    assert not (tmp_path / "out").exists()


def test_one_prompt_alone_is_for_all(diffedit, files):
    (files / "jobs.csv").write_text("image\nscene.png\n")
    done = diffedit("--prompt", "a mug", "a ball", jobs=files / "jobs.csv", image=None, prompt=None)
    assert_refused(done, "--prompt", 2)
