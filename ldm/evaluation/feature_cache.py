"""Features of picture files, kept on disk by what the files contain, so that nothing is looked at twice."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ldm.evaluation.extractors import Extractor
from ldm.utils.errors import UserError
from ldm.utils.files import content_hash, replacing
from ldm.utils.image import open_image

T = TypeVar("T")
SHARD = 1024  # features in a file of the cache, about: what a kill can cost


class Preparation(Protocol):
    """What is done to a picture before the extractor's own preparation, or in its stead.

    Attributes:
        name: says all that it depends on besides the picture; part of the cache's key. E.g. "box (3, 4, 90, 80)".
    """

    name: str

    def __call__(self, image: Image.Image) -> Image.Image | Tensor:
        """A picture, which the extractor prepares; or (3, S, S) as the extractor's network takes it."""


def features_of(
    extractor: Extractor,
    files: Sequence[str | Path],
    cache: "FeatureCache | None" = None,
    batch: int = 64,
    prepare: Preparation | Sequence[Preparation] | None = None,
    desc: str | None = None,
) -> Tensor:
    """Features (N, d) float32 on the CPU of picture files, in their order.

    Batches are cut from the whole list, and one of which anything is missing in the cache is made whole again: what a
    killed run has left undone comes out to the last bit as if it had not been killed.

    Args:
        cache: what is in it is not made again.
        prepare: of all pictures, or each one's own; none by default.
        desc: of the progress bar; by default the extractor's name.

    Raises:
        UserError: a file is no picture, or there are none.
    """
    files, desc = [Path(file) for file in files], desc or extractor.name
    if not files:
        raise UserError(f"{desc}: no pictures to look at")
    views = list(prepare) if isinstance(prepare, Sequence) else [prepare] * len(files)
    with ThreadPoolExecutor() as pool:
        keys = list(pool.map(_key, files, views))
        known = cache.read(extractor.about) if cache else {}
        cuts = [slice(start, start + batch) for start in range(0, len(files), batch)]
        todo = [cut for cut in cuts if any(key not in known for key in keys[cut])]
        count = sum(len(keys[cut]) for cut in todo)
        fresh: dict[str, Tensor] = {}
        pictures = _ahead(pool.map(lambda *of: _open(extractor, *of), files[cut], views[cut]) for cut in todo)
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
    """Features on disk, by a picture's content and preparation and by the extractor's `about`.

    A folder for each `about`, and in it files of some hundred features each, which appear whole or not at all and never
    change; their names say what is in them, so that a damaged one is found out. Processes may share a cache.

    Args:
        folder: made when something is added.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def read(self, about: Mapping[str, str]) -> dict[str, Tensor]:
        """All features of an extractor, by key: (d,) float32 each. A damaged file is told on stderr, and removed."""
        known: dict[str, Tensor] = {}
        for file in sorted(self._place(about).glob("*.safetensors")):
            try:
                with safe_open(file, framework="pt") as content:
                    keys, rows = json.loads(content.metadata()["keys"]), content.get_tensor("features")
                if file.stem != _digest(keys, rows):
                    raise ValueError("not what its name says")
            except (SafetensorError, OSError, ValueError, KeyError, TypeError):
                print(f"{file}: damaged, removed; its features are made again", file=sys.stderr)
                file.unlink(missing_ok=True)
            else:
                known |= zip(keys, rows, strict=True)
        return known

    def add(self, about: Mapping[str, str], rows: Mapping[str, Tensor]) -> None:
        """Write features (d,) by key, as one file.

        Raises:
            UserError: it cannot be written.
        """
        place, keys, features = self._place(about), list(rows), torch.stack(list(rows.values()))
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {place}: {error.strerror}") from error
        with replacing(place / f"{_digest(keys, features)}.safetensors") as partial:
            save_file({"features": features}, partial, {**about, "keys": json.dumps(keys)})

    def _place(self, about: Mapping[str, str]) -> Path:
        digest = hashlib.blake2b(json.dumps(dict(about), sort_keys=True).encode(), digest_size=8).hexdigest()
        words = re.sub(r"\W+", "_", about["extractor"]).strip("_").lower()
        return self.folder / f"{words}-{digest}"


def _key(file: Path, view: Preparation | None) -> str:
    """Of a picture's content and its preparation; the file's name is no part of it."""
    digest = content_hash(file)
    return f"{digest} {view.name}" if view else digest


def _open(extractor: Extractor, file: Path, view: Preparation | None) -> Tensor:
    image: Image.Image | Tensor = open_image(file).convert("RGB")
    image = view(image) if view else image
    return image if isinstance(image, Tensor) else extractor.prepare(image)


def _digest(keys: Sequence[str], rows: Tensor) -> str:
    return hashlib.blake2b("\n".join(keys).encode() + rows.numpy().tobytes(), digest_size=16).hexdigest()


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each after the next has been started."""
    waiting: list[T] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting
