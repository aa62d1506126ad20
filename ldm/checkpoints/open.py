"""Models ready to run, from a config and its weights: device and precision chosen, filled tensor by tensor."""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from torch import nn

from ldm.checkpoints.load import build_empty, fill, read_files, take
from ldm.compat.configs import load_config
from ldm.models.diffusion import Domain
from ldm.utils.device import choose_device, has_fast_bf16
from ldm.utils.errors import UserError
from ldm.utils.project import find_file

Precision = Literal["auto", "full", "bf16"] | torch.dtype
BIG = 200_000_000  # parameters; below, the time that bf16 saves is not worth its rounding


def load(
    config: str | Path | DictConfig,
    file: str | Path | Sequence[str | Path] | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    *,
    root: str | None = None,
    check: Callable[[nn.Module], None] | None = None,
    name: str | Path | None = None,
) -> nn.Module:
    """Build the model of a config and fill it from a checkpoint, in eval mode and without gradients.

    Files of this package and official ones (Paint by Example, Stable Diffusion 1.x, guided-diffusion), in torch's
    formats or safetensors, are recognised by their content. No pickle is executed. Every tensor of the model must be in
    the file with its shape, and every tensor of the file in the model, except those that `keymaps.is_skipped` names.

    Args:
        config: a file, a name in `configs/` such as "toyworld", or a loaded config. Its `model` is built.
        file: the weights, possibly in several files; by default the config's `checkpoint`.
        device: "auto" is a GPU (CUDA, then Apple's) if available, else the CPU.
        precision: "full" is fp32, without TensorFloat-32 in the convolutions of this process, which torch has on by
            default; "auto" is "bf16" for a large model where the hardware computes it. Or a dtype of torch.
        root: the part of the file's model that this model is, e.g. "autoencoder"; the other parts are ignored.
        check: called with the model before it is filled, to refuse one of another kind.
        name: name of a loaded config, for messages.

    Raises:
        UserError: the config or a file is wrong, or they do not fit each other.
    """
    loaded = isinstance(config, DictConfig)
    label, node = f"config {name or 'given' if loaded else config}", config if loaded else load_config(config)
    if "model" not in node:
        raise UserError(f"{label}: `model` is missing")
    model = build_empty(node.model)
    if check is not None:
        check(model)
    files = files_of(node, file, label)
    device = choose_device(device) if isinstance(device, str) else device
    if precision == "auto":
        size = sum(parameter.numel() for parameter in model.parameters())
        precision = "bf16" if size > BIG and has_fast_bf16(device) else "full"
    dtypes = {"full": torch.float32, "bf16": torch.bfloat16}
    if not isinstance(precision, torch.dtype) and precision not in dtypes:
        raise UserError(f"precision {precision!r}: expected auto, full, bf16 or a dtype of torch")
    if precision == "full":  # TensorFloat-32's products have 10 bits of mantissa, as float16 has
        torch.backends.cudnn.allow_tf32 = False
    load_into(model, files, device, dtypes.get(precision, precision), root)
    if "domain" in node:
        model.domain = Domain(**node.domain)
    return model


def precision_of(model: nn.Module) -> str:
    """Return the precision that a model was loaded in: as `load` calls it, or the name of another dtype."""
    dtype = next(model.parameters()).dtype
    return {torch.float32: "full", torch.bfloat16: "bf16"}.get(dtype, str(dtype).removeprefix("torch."))


def load_into(
    model: nn.Module,
    files: Iterable[str | Path],
    device: str | torch.device,
    dtype: torch.dtype,
    root: str | None = None,
) -> nn.Module:
    """Fill a model that has been built empty; see `load`."""
    tensors, source = read_files(files)
    prefix = f"{root}." if root else ""
    shapes = {prefix + name: tensor.shape for name, tensor in model.state_dict().items()}
    values = take(shapes, tensors, source, device=device, dtype=dtype, within=prefix)
    fill(model, {name.removeprefix(prefix): value for name, value in values.items()})
    return model.eval().requires_grad_(False)


def files_of(config: DictConfig, file: str | Path | Sequence[str | Path] | None, label: str) -> list[str | Path]:
    """Return the given files, or else those that the config names; `label` is the config in messages."""
    if file is None:
        if not config.get("checkpoint"):
            raise UserError(f"{label}: names no weights, expected a file; see pretrained_models/README.md")
        named = config.checkpoint
        return [find_file(name) for name in ([named] if isinstance(named, str) else named)]
    return [file] if isinstance(file, str | Path) else list(file)


def load_classifier(
    given: MutableMapping[str, Any], node: DictConfig, device: torch.device, precision: Precision
) -> nn.Module | None:
    """Load the classifier of `ldm.utils.cli.add_classifier_flags`, if one is given; see `load`.

    Args:
        given: flags, to which the weights that the model's config names are added, unless others are given.
        node: the model's config; one of the original's may have a `classifier`.

    Raises:
        UserError: it is another kind of model, or a scale is given without a classifier.
    """
    if "classifier" in node:
        given.setdefault("classifier", node.classifier)
    if not given.keys() & {"classifier", "classifier_config"}:
        if "classifier_scale" in given:
            raise UserError("--classifier_scale: expected --classifier or --classifier_config with it")
        return None
    config = given.get("classifier_config", "imagenet256_classifier")

    def check(model: nn.Module) -> None:
        if not getattr(model, "num_classes", None) or hasattr(model, "unet"):
            raise UserError(f"config {config}: {type(model).__name__} is not a classifier")

    return load(config, given.get("classifier"), device, precision, check=check)
