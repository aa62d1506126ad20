"""The evaluation commands of Paint by Example's README, with a small network in the place of CLIP."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.mixture import GaussianMixture
from torch import nn

from ldm.benchmark.layout import item_file
from ldm.evaluation.clip_score import RegionCrop, cosine_score, whole
from ldm.evaluation.extractors import ClipFeatures, Extractor
from ldm.utils.image import open_image, to_tensor
from ldm.utils.mask import mask_box, open_mask
from tests.refusals import assert_line, assert_mentions, assert_refused

SIDE, COUNT = 24, 16


class Colours(Extractor):
    """The mean colour, three features."""

    name, preprocessing, convention = "colours", "none", "RGB"
    scale = 1.0

    def __init__(self, name: str = "colours"):
        super().__init__(nn.Identity())
        self.name, self.seen = name, 0

    def prepare(self, image):
        return to_tensor(image)[0]

    def __call__(self, pixels):
        self.seen += len(pixels)
        return pixels.mean((2, 3)) * self.scale


@pytest.fixture
def network(monkeypatch):
    network = Colours()
    network.opened = []

    def open_extractor(*arguments):
        network.opened.append(arguments)
        return network

    monkeypatch.setattr("ldm.evaluation.extractors.open_extractor", open_extractor)
    return network


def picture(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 256, 3) * 0.7 + draw.integers(0, 70, (*size[::-1], 3))
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture
def bench(tmp_path):
    """A test bench, its results and real pictures."""
    ids = [7 * k + 1 for k in range(COUNT)]
    for folder in ("GT_3500", "Mask_bbox_3500", "Ref_3500", "results", "real"):
        (tmp_path / "bench" / folder).mkdir(parents=True)
    root = tmp_path / "bench"
    for k, id in enumerate(f"{id:012d}" for id in ids):
        picture(k).save(item_file(root, "image", id))
        picture(100 + k, (20, 30)).save(item_file(root, "exemplar", id))
        hole = Image.new("L", (SIDE, SIDE))
        hole.paste(255, (2 + k % 5, 3, 15, 18))
        hole.save(item_file(root, "mask", id))
        picture(200 + k).save(root / "results" / f"{id}.png")
        picture(300 + k, (40, 20)).save(root / "real" / f"{k}.jpg", quality=95)
    np.save(root / "id_list.npy", np.array(ids))
    return root


def colours(folder) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)).mean((0, 1)) / 127.5 - 1 for file in sorted(folder.iterdir())])


def fid(a: np.ndarray, b: np.ndarray) -> float:
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root


# Fréchet distance


def test_fid(run_script, bench, network):
    command = ("fid_score.py", "--device", "cpu", bench / "real", bench / "results")
    done = run_script(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"CLIP-FID: {fid(colours(bench / 'results'), colours(bench / 'real')):.4f} [" in done.stdout
    assert f"({COUNT} pictures against {COUNT} real ones; 95 % interval)" in done.stdout
    assert "features: colours; unnamed; none; RGB" in done.stdout
    assert network.opened == [("clip_vit_b32", None, torch.device("cpu"))]

    seen = network.seen
    again = run_script(*command, "--inception", "--weights", "random", "--dims", 2048, "--num-workers", 8)
    assert network.opened[1] == ("inception", "random", torch.device("cpu"))
    assert again.stdout == done.stdout.replace("CLIP-FID", "FID")
    assert_line(again.stderr.removesuffix("\n"), "note", "--dims", "--num-workers")
    assert network.seen == seen  # the features were kept


def test_fid_of_the_same_pictures_is_zero(run_script, bench, network):
    done = run_script("fid_score.py", bench / "results", bench / "results", "--resamples", 10)
    assert abs(float(done.stdout.split()[1])) < 1e-6


def test_fid_of_too_few_pictures(run_script, bench, network):
    for file in sorted((bench / "real").iterdir())[3:]:
        file.unlink()
    command = ("fid_score.py", bench / "real", bench / "results")
    done = run_script(*command)
    assert_refused(done, bench / "real", 3)
    assert run_script(*command, "--singular").returncode == 0


@pytest.mark.parametrize("script", ["fid_score.py", "gmm_score_coco.py"])
def test_results_are_not_what_they_should_be(run_script, bench, network, tmp_path, script):
    before = (bench / "real",) if script == "fid_score.py" else ()
    after = ("--gmm_path", tmp_path / "none") if script == "gmm_score_coco.py" else ()

    def refusal(*flags):
        done = run_script(script, *before, bench / "results", *after, *flags)
        assert_refused(done, stdout=True)
        return done.stderr

    (bench / "results" / f"{1:012d}.png").unlink()
    assert_mentions(refusal("--id_list", bench / "id_list.npy"), 1, 16, "000000000001.png")
    picture(0, (30, 24)).save(bench / "results" / "grid.png")
    assert_mentions(refusal("--id_list", bench / "id_list.npy"), 1, "grid.png")
    assert_mentions(refusal(), "grid.png", "30x24", "24x24")
    for file in (bench / "results").iterdir():
        file.unlink()
    assert_mentions(refusal(), bench / "results")
    (bench / "results").rmdir()
    assert_mentions(refusal(), bench / "results")
    assert not network.opened


# Quality Score


@pytest.mark.parametrize("published", [False, True])
def test_quality_score(run_script, bench, network, tmp_path, published):
    network.scale = 0.1  # which makes densities large
    real, generated = (network.scale * colours(bench / name) for name in ("real", "results"))
    mixture = GaussianMixture(2, random_state=0).fit(real)
    if published:
        network.name = ClipFeatures.name  # of which it is
        (tmp_path / "gmm").write_bytes(pickle.dumps(mixture, 4))
    else:
        fitted = run_script("fit_gmm.py", bench / "real", "--out", "new/gmm.safetensors", "--k", 2)
        assert (fitted.returncode, fitted.stderr) == (0, "")
        assert f"fitting 2 Gaussians to 3 features of {COUNT} pictures" in fitted.stdout
        assert f"log-likelihood of the pictures is {mixture.score(real):.1f}" in fitted.stdout
    file = tmp_path / ("gmm" if published else "new/gmm.safetensors")
    done = run_script("gmm_score_coco.py", bench / "results", "--gmm_path", file, "--scale", 9, "--device", "cpu")
    expected = 100 * (mixture.score_samples(generated) / 9).clip(0, 1).mean()
    assert (done.returncode, done.stderr) == (0, "")
    value = float(done.stdout.split()[2])
    assert value == pytest.approx(expected, abs=0.02) and 0 < value < 100
    assert f"({COUNT} pictures; 95 % interval)" in done.stdout


def test_a_gmm_knows_of_whose_features_it_is(run_script, bench, network, monkeypatch, tmp_path):
    assert run_script("fit_gmm.py", bench / "real", "--out", "gmm.safetensors", "--k", 1).returncode == 0
    monkeypatch.setattr("ldm.evaluation.extractors.open_extractor", lambda *_: Colours("others"))
    done = run_script("gmm_score_coco.py", bench / "results", "--gmm_path", "gmm.safetensors")
    assert_refused(done, "gmm.safetensors", "colours", "others")
    published = GaussianMixture(1).fit(colours(bench / "real"))
    (tmp_path / "published").write_bytes(pickle.dumps(published))
    done = run_script("gmm_score_coco.py", bench / "results", "--gmm_path", "published")
    assert_refused(done, "published", "CLIP ViT-B/32", "others")


def test_gmm_errors(run_script, bench, network):
    done = run_script("gmm_score_coco.py", bench / "results", "--gmm_path", "coco2017_gmm_k20")
    assert_refused(done, "coco2017_gmm_k20", "README")
    done = run_script("fit_gmm.py", bench / "real", "--out", "gmm.safetensors")
    assert_refused(done, "GMM", 16, 61, 20, 3, stdout=True)
    for scale in (0, -3, "nan", "inf"):
        done = run_script("gmm_score_coco.py", bench / "results", "--gmm_path", "gmm", f"--scale={scale}")
        assert_refused(done, "--scale", scale)
    done = run_script("fit_gmm.py", bench / "real", "--out", "gmm.pkl")
    assert_refused(done, "--out", "gmm.pkl", ".safetensors")
    assert run_script("fit_gmm.py", bench / "real", "--out", "g.safetensors", "--k", 6, "--singular").returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(run_script, bench, network):
    done = run_script("gmm_score_coco.py", bench / "results", "--gmm_path", "gmm", "--gpu", 1)
    assert_refused(done, "cuda:1")


# CLIP score


@pytest.mark.parametrize("crop", ["original", "exact"])
def test_region_clip_score(run_script, bench, network, crop):
    flags = ("--test_bench", bench, "--crop", crop, "--device", "cpu")
    done = run_script("region_clip_score.py", "--result_dir", bench / "results", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    boxes, exemplars = [], []
    for file in sorted((bench / "results").iterdir()):
        box = mask_box(open_mask(item_file(bench, "mask", file.stem), (SIDE, SIDE)))
        boxes.append(RegionCrop(box, crop)(open_image(file)))
        exemplars.append(whole(open_image(item_file(bench, "exemplar", file.stem))))
    expected = cosine_score(network(torch.stack(boxes)), network(torch.stack(exemplars))).mean().item()
    assert f"CLIP score: {expected:.2f} [" in done.stdout
    assert f"({COUNT} boxes, {crop} crop; 95 % interval)" in done.stdout


def test_region_clip_score_of_what_does_not_fit(run_script, bench, network):
    def refusal():
        done = run_script("region_clip_score.py", "--result_dir", bench / "results", "--test_bench", bench)
        assert_refused(done, stdout=True)
        return done.stderr

    result = bench / "results" / f"{8:012d}.png"
    picture(0, (48, 48)).save(result)
    assert_mentions(refusal(), result, "48x48", "24x24")
    result.unlink()
    assert_mentions(refusal(), 1, 16, "000000000008.png")
    (bench / "results" / "strange.txt").touch()
    assert_mentions(refusal(), "strange.txt")
    assert not network.opened


def test_region_clip_score_of_a_bench_that_lacks_something(run_script, bench, network):
    mask = item_file(bench, "mask", f"{8:012d}")
    Image.new("L", (48, 48), 255).save(mask)
    (bench / "results" / mask.name.replace("_mask", "")).unlink()
    done = run_script("region_clip_score.py", "--result_dir", bench / "results", "--test_bench", bench)
    assert done.returncode == 4 and f"({COUNT - 1} boxes, " in done.stdout
    first, last = done.stderr.splitlines()
    assert first.startswith("error: ") and last.startswith("error: ")
    assert_mentions(first, f"{8:012d}", mask, "48x48", "24x24")
    assert_mentions(last, 1, COUNT)


# squares


def test_squares_of_real_pictures(run_script, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    wide, grey = picture(1, (60, 41)), picture(2, (30, 50)).convert("L")
    wide.save(tmp_path / "in" / "wide.png")
    grey.save(tmp_path / "in" / "deep" / "grey.png")
    command = ("create_square_gt_for_fid.py", "--data", tmp_path / "in", "--out", "out", "--size", 20)
    done = run_script(*command)
    assert (done.returncode, done.stdout) == (0, "out: 2 pictures, 20x20\n")
    made = {file.name: np.asarray(Image.open(file)) for file in (tmp_path / "out").iterdir()}
    resized = np.asarray(wide.resize((29, 20), Image.Resampling.BILINEAR))  # the long side is int(20 * 60 / 41)
    assert (made["wide.png"] == resized[:, 4:24]).all()  # the left margin 4.5 is rounded to even
    resized = np.asarray(grey.resize((20, 33), Image.Resampling.BILINEAR))
    assert made["grey.png"].shape == (20, 20, 3) and (made["grey.png"][..., 1] == resized[6:26]).all()

    (tmp_path / "in" / "broken.jpg").write_bytes(b"none")
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    done = run_script(*command)
    assert (done.returncode, done.stdout) == (4, "out: 2 pictures, 20x20\n")
    assert done.stderr.startswith("error: ")
    assert_mentions(done.stderr, "broken.jpg")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == times


def test_squares_need_names_of_their_own(run_script, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        picture(1).save(tmp_path / "in" / name)
    done = run_script("create_square_gt_for_fid.py", "--data", tmp_path / "in", "--out", "out")
    assert_refused(done, 1, "a")
    assert not (tmp_path / "out").exists()
    done = run_script("create_square_gt_for_fid.py", "--data", tmp_path / "none")
    assert_refused(done, tmp_path / "none")
