"""A model that knows few kinds of pictures warns of others."""

import numpy as np
import pytest
from PIL import Image

import ldm
from ldm.utils.project import EXAMPLES
from tests.refusals import assert_line
from tests.utils.pictures import mask

SCENE, EXEMPLAR = EXAMPLES / "scene.png", EXAMPLES / "exemplar.png"


@pytest.fixture(scope="module")
def editor():
    return ldm.ExemplarEditor.from_pretrained("toyworld", device="cpu", steps=1)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_its_own_scenes_are_taken_in_silence(editor, caplog):
    editor(SCENE, EXAMPLES / "mask.png", EXEMPLAR)
    assert warnings(caplog) == []


def test_a_picture_that_its_autoencoder_does_not_know(editor, caplog):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    editor(noise, mask(64, 64, box=(9, 9, 40, 40)), EXEMPLAR)
    (line,) = warnings(caplog)
    assert_line(line, "ToyWorld", "dB", 25)


def test_a_picture_that_is_too_large(editor, caplog):
    scene = Image.open(SCENE).resize((96, 80))
    editor(scene, mask(96, 80, box=(9, 9, 40, 40)), EXEMPLAR)
    (line,) = warnings(caplog)
    assert_line(line, "96x80", "ToyWorld", "--crop auto")
    caplog.clear()
    editor(scene, mask(96, 80, box=(9, 9, 40, 40)), EXEMPLAR, crop="auto")
    assert warnings(caplog) == []
