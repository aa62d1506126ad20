"""The networks of the metrics, opened by name: published weights, or random ones for a trial."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import Dialect, clip_vision, own
from ldm.checkpoints.load import fill, take
from ldm.checkpoints.lpips import ALEXNET, VGG16, classifier_shapes, make_lpips
from ldm.config import build, load_config
from ldm.evaluation.extractors import (
    ClipFeatures,
    DinoFeatures,
    Extractor,
    InceptionFeatures,
    LpipsDistance,
    ToyWorldClip,
)
from ldm.utils.errors import UserError
from ldm.utils.project import find_file
from ldm.utils.random import generator

RANDOM = "random"
COUNTERS = "num_batches_tracked"  # of a training's steps, in norms; not every file has them, and torch adds zeros


class Kind(NamedTuple):
    """What `open_extractor` opens by name."""

    metric: Callable[[nn.Module, str], Extractor | LpipsDistance]  # of a network and a word on its weights
    network: Callable[[Mapping[str, Tensor] | None, str], nn.Module]  # of a file's tensors (None: random) and its name
    file: str  # the official name, in pretrained_models
    origin: str


def open_extractor(
    kind: str, weights: str | Path | None = None, device: str | torch.device = "cpu"
) -> Extractor | LpipsDistance:
    """A network of the metrics, ready for use on a device.

    Args:
        kind: one of `KINDS`; `lpips_*` are distances between two pictures, the others extract features.
        weights: a file; by default the published one, where it belongs in pretrained_models. "random": numbers that
            mean nothing, for trials; the same ones each time, and `about` says so.

    Raises:
        UserError: there is no such kind or file (one line that says where to put it), or it holds something else.
    """
    if kind not in KINDS:
        raise UserError(f"extractor {kind!r}: expected one of {', '.join(KINDS)}")
    metric, network, file, origin = KINDS[kind]
    if weights == RANDOM:
        return metric(network(None, RANDOM).to(device), "random, seed 0: the numbers mean nothing")
    path = find_file(f"pretrained_models/{file}") if weights is None else Path(weights)
    if not path.is_file():
        raise UserError(f"{path}: no such file, the weights of {kind}; get them from {origin}")
    return metric(network(read_tensors(path), str(path)).to(device), f"sha256 {sha256(path)}")


def sha256(file: Path) -> str:
    """Of a file's content."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def random_values(shapes: Mapping[str, torch.Size], seed: int = 0) -> dict[str, Tensor]:
    """Values for a network's tensors, by name, with which activations keep their size at any depth (He, 1502.01852)."""
    values = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            noise = torch.randn(shape, generator=generator(seed, "random", name))
            values[name] = noise * (2 / shape[1:].numel()) ** 0.5
        else:
            identity = name.endswith(("weight", "running_var"))  # of a norm
            values[name] = torch.ones(shape) if identity else torch.zeros(shape)
    return values


def _filled(
    empty: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor] | None,
    source: str,
    dialect: Dialect = own,
    **how: Any,
) -> nn.Module:
    """The network, filled strictly; `how` goes to `take`."""
    with torch.device("meta"):
        network = empty()
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items() if not name.endswith(COUNTERS)}
    fill(network, random_values(shapes) if tensors is None else take(shapes, tensors, source, dialect, **how))
    return network


def _clip_vit_b32(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    """OpenAI's file or open_clip's, whose projection is a matrix, or Hugging Face's, where it is a layer."""
    names = tensors or {}
    hugging_face = "visual_projection.weight" in names
    if "visual.proj" in names:
        tensors = {**names, "visual.proj": names["visual.proj"].T}
    tower = clip_vision("vision_model." if hugging_face else "visual.", hugging_face)

    def dialect(name: str) -> tuple[str, ...]:
        if name == "projection.weight":
            return ("visual_projection.weight" if hugging_face else "visual.proj",)
        return tower(f"conditioner.{name}")

    return _filled(ClipFeatures.architecture, tensors, source, dialect, within="encoder.visual.")


def _toyworld_clip(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    return _filled(lambda: build(load_config("toyworld_clip").model), tensors, source)


def _inception(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    """torch-fidelity's file or pytorch-fid's: the same network, with a classifier of 1008 classes behind it."""
    beyond = ("fc.weight", "fc.bias", COUNTERS)
    return _filled(InceptionFeatures.architecture, tensors, source, skip=lambda name: name.endswith(beyond))


def _dino_vits16(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    return _filled(DinoFeatures.architecture, tensors, source)


def _lpips(net: str) -> Callable[[Mapping[str, Tensor] | None, str], nn.Module]:
    def network(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
        """Random is the classifier alone: weights of its layers that are no weights would make distances negative."""
        return make_lpips(net, random_values(classifier_shapes(net)) if tensors is None else tensors, source)

    return network


OPENAI = (
    "https://openaipublic.azureedge.net/clip/models/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
)
KINDS = {
    "clip_vit_b32": Kind(ClipFeatures, _clip_vit_b32, "ViT-B-32.pt", f"{OPENAI}/ViT-B-32.pt"),
    "inception": Kind(
        InceptionFeatures,
        _inception,
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    "dino_vits16": Kind(
        DinoFeatures,
        _dino_vits16,
        "dino_deitsmall16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    ),
    "lpips_alex": Kind(LpipsDistance, _lpips("alex"), "alexnet-owt-7be5be79.pth", ALEXNET),
    "lpips_vgg": Kind(LpipsDistance, _lpips("vgg"), "vgg16-397923af.pth", VGG16),
    "toyworld_clip": Kind(ToyWorldClip, _toyworld_clip, "toyworld/clip.safetensors", "this repository"),
}
"""The names that `open_extractor` knows."""
