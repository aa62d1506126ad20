"""Results of a long study in a JSON file, so that it continues where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from ldm.utils.errors import UserError
from ldm.utils.files import write_json

R = TypeVar("R")


class KeptResults(Generic[R]):
    """Results by name, written to the file as soon as they are set.

    Args:
        file: earlier results of the same study, if it exists.
        kind: dataclass of a result.
        about: what the results depend on, for JSON.
        study: name of the study, for messages.

    Raises:
        UserError: the file contains something else.
    """

    def __init__(self, file: Path, kind: type[R], about: Mapping[str, Any], study: str):
        self.file, self.about = file, dict(about)
        self._results = self._read(kind, study) if file.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def __getitem__(self, name: str) -> R:
        return self._results[name]

    def __setitem__(self, name: str, result: R) -> None:
        self._results[name] = result
        results = {key: vars(result) for key, result in self._results.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, {"about": self.about, "results": results})

    def _read(self, kind: type[R], study: str) -> dict[str, R]:
        try:
            held = json.loads(self.file.read_text(encoding="utf-8"))
            about, results = held["about"], {key: kind(**result) for key, result in held["results"].items()}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{self.file}: does not contain results of {study}") from error
        if about != self.about:
            raise UserError(
                f"{self.file}: contains results of other networks or scenes; delete it or choose another --out"
            )
        return results


def fingerprint(*networks: nn.Module) -> str:
    """Return a short hash of all weights."""
    digest = hashlib.blake2b(digest_size=8)
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
