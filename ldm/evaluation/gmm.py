"""Mixtures of Gaussians for the Quality Score, which know of whose features they are."""

from collections.abc import Mapping
from pathlib import Path

from ldm.checkpoints.gmm import read_gmm, write_gmm
from ldm.evaluation.extractors import ClipFeatures, Extractor
from ldm.evaluation.quality_score import Gmm
from ldm.utils.errors import UserError

ORIGIN = (
    "Paint by Example's README links the published one, coco2017_gmm_k20, and ldm fit-gmm fits one to a folder "
    "of real pictures"
)


def open_gmm(file: str | Path, extractor: Extractor) -> Gmm:
    """The mixture of a file, for features of the extractor.

    Raises:
        UserError: there is no such file, it holds no mixture, or one that was fitted to features of another kind. A
            published pickle does not say of which: it is Paint by Example's, of CLIP ViT-B/32.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"GMM {file}: no such file; {ORIGIN}")
    arrays, told = read_gmm(file)
    told = {"extractor": ClipFeatures.name} if told is None else told
    for key, value in extractor.about.items():
        if told.get(key, value) != value:
            raise UserError(f"GMM {file}: fitted to features of {key} {told[key]!r}, not of {value!r}")
    return Gmm(**arrays)


def save_gmm(file: str | Path, gmm: Gmm, extractor: Extractor, about: Mapping[str, str]) -> None:
    """Write a mixture for `open_gmm`, with what it was fitted to.

    Raises:
        UserError: the file cannot be written.
    """
    write_gmm(file, vars(gmm), {**about, **extractor.about})
