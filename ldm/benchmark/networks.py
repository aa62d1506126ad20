"""The networks that measure, and what a report has to say of them."""

from collections.abc import Mapping
from functools import partial

import torch

from ldm.benchmark.run import Attempts
from ldm.evaluation.extractors import Extractor, LpipsDistance
from ldm.evaluation.open_extractor import open_extractor


def open_extractors(
    weights: Mapping[str, str | None], device: torch.device, attempt: Attempts
) -> dict[str, Extractor | LpipsDistance]:
    """The networks of the metrics by kind, see `open_extractor`; those that cannot be opened are told of."""
    found = {kind: attempt(kind, partial(open_extractor, kind, file, device)) for kind, file in weights.items()}
    return {kind: network for kind, network in found.items() if network is not None}


def abouts(networks: Mapping[str, Extractor | LpipsDistance]) -> dict[str, dict[str, str]]:
    """All that numbers of networks depend on, by kind, for a report."""
    return {kind: network.about for kind, network in networks.items()}


def random_notes(networks: Mapping[str, Extractor | LpipsDistance]) -> list[str]:
    """A warning for each network of the metrics that has no trained weights."""
    return [
        f"**The weights of {network.name} are random: its numbers are of a trial, and mean nothing.**"
        for network in networks.values()
        if network.about["weights"].startswith("random")
    ]
