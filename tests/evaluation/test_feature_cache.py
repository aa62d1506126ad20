import os
import signal
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from ldm.evaluation import feature_cache
from ldm.evaluation.extractors import Extractor
from ldm.evaluation.feature_cache import FeatureCache, features_of
from tests.refusals import refused


class Sums(Extractor):
    """A small one, that counts the pictures it has seen and can be killed on the way."""

    name, preprocessing, convention = "sums", "PIL's bilinear to 8 x 8", "none"

    def __init__(self, weights="seed 0", last=None):
        torch.manual_seed(0)
        super().__init__(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 50)), weights)
        self.seen, self.last = 0, last

    def prepare(self, image):
        return TF.to_tensor(image.resize((8, 8), Image.Resampling.BILINEAR))

    def __call__(self, pixels):
        if self.last is not None and self.seen >= self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += len(pixels)
        return super().__call__(pixels)


class Left:
    """The left part of a picture."""

    def __init__(self, width):
        self.width, self.name = width, f"left {width}"

    def __call__(self, image):
        return image.crop((0, 0, self.width, image.height))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "pictures").mkdir()
    for k in range(21):
        pixels = np.random.default_rng(k).integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{k:02}.png")
    return sorted((tmp_path / "pictures").iterdir())


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def shards(cache):
    return sorted(cache.folder.rglob("*.safetensors"))


def test_features_are_the_extractors_in_the_order_of_the_files(files):
    extractor = Sums()
    expected = torch.cat([extractor(extractor.prepare(Image.open(file))[None]) for file in files[::-1]])
    found = features_of(extractor, files[::-1], batch=4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_nothing_is_looked_at_twice(files, cache):
    first, again = Sums(), Sums()
    expected = features_of(first, [*files, files[3]], cache, batch=4)
    assert torch.equal(features_of(again, [*files, files[3]], cache, batch=4), expected)
    assert first.seen == len(files) + 1 and again.seen == 0
    assert torch.equal(features_of(again, files[:5], cache), expected[:5]) and again.seen == 0


def test_a_picture_is_known_by_its_content_not_by_its_name(files, cache, tmp_path):
    expected = features_of(Sums(), files, cache, batch=1)
    os.rename(files[0], files[0].with_name("renamed.png"))
    os.rename(files[1], files[0])
    extractor = Sums()
    found = features_of(extractor, [files[0].with_name("renamed.png"), files[0]], cache)
    assert torch.equal(found, expected[:2]) and extractor.seen == 0
    Image.open(files[3]).rotate(180).save(files[2])
    changed = features_of(extractor, files[2:4], cache, batch=1)
    assert extractor.seen == 1 and torch.equal(changed[1], expected[3]) and not torch.equal(changed[0], expected[2])


def test_other_weights_and_other_preparations_are_other_features(files, cache):
    whole = features_of(Sums(), files, cache)
    for other in (Sums("seed 1"), Sums()):
        features_of(other, files, cache, prepare=Left(10))
        assert other.seen == len(files)
    extractor = Sums()
    views = [Left(10 + k % 2) for k in range(len(files))]
    mixed = features_of(extractor, files, cache, batch=1, prepare=views)
    assert extractor.seen == len(files) // 2  # the even ones are known
    for k, view in enumerate(views):
        cut = extractor.prepare(view(Image.open(files[k])))
        torch.testing.assert_close(mixed[k], extractor(cut[None])[0])
    assert torch.equal(features_of(extractor, files, cache), whole)


def test_a_preparation_can_take_the_extractors_place(files):
    class Grey:
        name = "grey"

        def __call__(self, image):
            return torch.full((3, 8, 8), 0.5)

    found = features_of(Sums(), files[:2], prepare=Grey())
    torch.testing.assert_close(found, Sums()(torch.full((2, 3, 8, 8), 0.5)))


def flip(data):
    middle = len(data) - 100  # in the numbers, which no format checks
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [flip, lambda data: data[:-7], lambda data: b"", lambda data: b"text" * 30])
def test_a_damaged_file_is_reported_and_made_again(files, cache, damage, monkeypatch, caplog):
    monkeypatch.setattr(feature_cache, "SHARD", 10)
    expected = features_of(Sums(), files, cache, batch=5)
    assert len(shards(cache)) == 3
    broken = shards(cache)[0]
    broken.write_bytes(damage(broken.read_bytes()))
    extractor = Sums()
    assert torch.equal(features_of(extractor, files, cache, batch=5), expected)
    assert 0 < extractor.seen < len(files)
    assert caplog.text.count(str(broken)) == 1
    assert torch.equal(features_of(extractor, files, cache, batch=5), expected) and len(shards(cache)) == 3


def killed(files, folder, last):
    feature_cache.SHARD = 5
    features_of(Sums(last=last), files, FeatureCache(folder), batch=5)


def test_a_killed_run_goes_on_to_the_same_bits(files, cache):
    expected = features_of(Sums(), files, batch=5)
    process = get_context("spawn").Process(target=partial(killed, files, cache.folder, last=10))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    extractor = Sums()
    assert torch.equal(features_of(extractor, files, cache, batch=5), expected)
    assert extractor.seen == len(files) - 10
    assert not [file for file in cache.folder.rglob("*") if file.name.endswith(".tmp")]


def test_what_has_been_looked_at_is_kept_when_a_picture_is_none(files, cache):
    files[12].write_text("no picture")
    with refused(files[12]):
        features_of(Sums(), files, cache, batch=5)
    extractor = Sums()
    features_of(extractor, files[:10], cache, batch=5)
    assert extractor.seen == 0


def test_what_is_wrong_is_said(files, cache, tmp_path):
    with refused(tmp_path / "gone.png"):
        features_of(Sums(), [tmp_path / "gone.png"], cache)
    with refused("results"):
        features_of(Sums(), [], cache, desc="results")
    (tmp_path / "file").write_text("")
    with refused(tmp_path / "file"):
        features_of(Sums(), files, FeatureCache(tmp_path / "file"))
