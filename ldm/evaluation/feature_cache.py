"""Features of picture files, cached on disk by the files' contents."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ldm.evaluation.extractors import Extractor
from ldm.utils.errors import UserError, reason
from ldm.utils.files import content_hash, replacing
from ldm.utils.image import open_image

T = TypeVar("T")
SHARD = 1024  # approximate number of features in a file of the cache, which a kill can lose

log = logging.getLogger(__name__)


class Preparation(Protocol):
    """A function of a picture before the extractor's own preparation, or instead of it.

    Attributes:
        name: describes the function completely, as part of the cache's key, e.g. "box (3, 4, 90, 80)".
    """

    name: str

    def __call__(self, image: Image.Image) -> Image.Image | Tensor:
        """Return a picture, which the extractor then prepares, or (3, S, S) as the network expects it."""


def features_of(
    extractor: Extractor,
    files: Sequence[str | Path],
    cache: "FeatureCache | None" = None,
    batch: int = 64,
    prepare: Preparation | Sequence[Preparation] | None = None,
    desc: str | None = None,
) -> Tensor:
    """Compute features (N, d) float32 on the CPU of picture files, in their order.

    Batches are slices of the whole list, and a batch is recomputed if any of its features are missing from the cache: a
    run that is killed and repeated gives the same bits as an uninterrupted one.

    Args:
        cache: of features that need not be computed again.
        prepare: one preparation for all pictures, or one for each.
        desc: label of the progress bar, by default the extractor's name.

    Raises:
        UserError: a file is not a picture, or there are no files.
    """
    files, desc = [Path(file) for file in files], desc or extractor.name
    if not files:
        raise UserError(f"{desc}: found no pictures")
    views = list(prepare) if isinstance(prepare, Sequence) else [prepare] * len(files)
    with ThreadPoolExecutor() as pool:
        keys = list(pool.map(_key, files, views))
        known = cache.read(extractor.about) if cache else {}
        cuts = [slice(start, start + batch) for start in range(0, len(files), batch)]
        todo = [cut for cut in cuts if any(key not in known for key in keys[cut])]
        count = sum(len(keys[cut]) for cut in todo)
        fresh: dict[str, Tensor] = {}
        pictures = _ahead(pool.map(partial(_open, extractor), files[cut], views[cut]) for cut in todo)
        try:
            with tqdm(total=len(files), initial=len(files) - count, desc=desc, unit="image", disable=None) as bar:
                for cut, prepared in zip(todo, pictures, strict=True):
                    rows = dict(zip(keys[cut], extractor(torch.stack(list(prepared))), strict=True))
                    fresh |= {key: row for key, row in rows.items() if key not in known}
                    known = rows | known
                    bar.update(len(keys[cut]))
                    if cache and len(fresh) >= SHARD:
                        cache.add(extractor.about, fresh)
                        fresh = {}
        finally:
            if cache and fresh:
                cache.add(extractor.about, fresh)
    return torch.stack([known[key] for key in keys])


class FeatureCache:
    """Features on disk, by the content and preparation of a picture and by the extractor's `about`.

    There is a folder for each `about`, with files of some hundred features each, written atomically and never changed.
    Their names are hashes of their contents, so that damage is detected. Processes may share a cache.

    Args:
        folder: created when something is added.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def read(self, about: Mapping[str, str]) -> dict[str, Tensor]:
        """Read all features of an extractor, by key, (d,) float32 each; damaged files are removed with a warning."""
        known: dict[str, Tensor] = {}
        for file in sorted(self._place(about).glob("*.safetensors")):
            try:
                with safe_open(file, framework="pt") as content:
                    keys, rows = json.loads(content.metadata()["keys"]), content.get_tensor("features")
                if file.stem != _digest(keys, rows):
                    raise ValueError("content does not match the name")
            except (SafetensorError, OSError, ValueError, KeyError, TypeError):
                log.warning("%s: damaged, removed; its features will be computed again", file)
                file.unlink(missing_ok=True)
            else:
                known |= zip(keys, rows, strict=True)
        return known

    def add(self, about: Mapping[str, str], rows: Mapping[str, Tensor]) -> None:
        """Write features (d,), by key, as one file.

        Raises:
            UserError: it cannot be written.
        """
        place, keys, features = self._place(about), list(rows), torch.stack(list(rows.values()))
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {place}: {reason(error)}") from error
        with replacing(place / f"{_digest(keys, features)}.safetensors") as temporary:
            save_file({"features": features}, temporary, {**about, "keys": json.dumps(keys)})

    def _place(self, about: Mapping[str, str]) -> Path:
        digest = hashlib.blake2b(json.dumps(dict(about), sort_keys=True).encode(), digest_size=8).hexdigest()
        words = re.sub(r"\W+", "_", about["extractor"]).strip("_").lower()
        return self.folder / f"{words}-{digest}"


def _key(file: Path, view: Preparation | None) -> str:
    """Return the key of a picture's content and preparation; the file's name does not matter."""
    digest = content_hash(file)
    return f"{digest} {view.name}" if view else digest


def _open(extractor: Extractor, file: Path, view: Preparation | None) -> Tensor:
    image: Image.Image | Tensor = open_image(file).convert("RGB")
    image = view(image) if view else image
    return image if isinstance(image, Tensor) else extractor.prepare(image)


def _digest(keys: Sequence[str], rows: Tensor) -> str:
    return hashlib.blake2b("\n".join(keys).encode() + rows.numpy().tobytes(), digest_size=16).hexdigest()


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items one behind, so that the next one has been started when an item is used."""
    waiting: list[T] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting
