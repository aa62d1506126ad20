"""What a training step costs, found out without a GPU: its arithmetic, and the memory of its activations.

The step is run, forward and backward, on tensors that have shapes and lifetimes but no values. They are on the CPU,
where what autograd keeps is as on a CUDA device: of attention q, k, v, the output and one number for each row, not the
L x L weights. Of autocast's rules only that on norms differs, and CUDA's is put in place.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ldm.models.clip_image import ExemplarConditioner
from ldm.training.latent_diffusion import LatentDiffusionTraining
from ldm.utils.errors import UserError


@dataclass(frozen=True)
class StepCost:
    """Of one forward and backward pass over a batch, on one device.

    Args:
        forward: FLOP of each part's forward pass; a multiplication with its addition is 2.
        flops: of all that is run: forward, backward, and what activation checkpointing computes again.
        saved: bytes that autograd keeps for the backward pass. Parameters are not counted, their bf16 copies are.
        activations: the most bytes at once beyond weights and gradients, temporary tensors included.
    """

    forward: dict[str, int]
    flops: int
    saved: int
    activations: int


def step_cost(training: LatentDiffusionTraining, batch_size: int, mixed: bool = True) -> StepCost:
    """Run a step of a training that was built on the meta device, which is of no other use afterwards.

    Args:
        training: unconditional or by exemplar.
        batch_size: of one device.
        mixed: bf16 autocast, otherwise float32.

    Raises:
        UserError: the training is of another kind.
    """
    conditioner = training.model.conditioner if isinstance(training, LatentDiffusionTraining) else False
    if not (conditioner is None or isinstance(conditioner, ExemplarConditioner)):
        raise UserError(
            f"{type(training).__name__}: the cost of exemplar and unconditional trainings can be told alone"
        )
    with FakeTensorMode(allow_non_fake_inputs=True), norms_in_float32():
        training.to("cpu")
        for parameter in training.parameters():  # those of the step before, or of the micro-batch before
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        held = [t for p in training.parameters() for t in (p, p.grad) if t is not None] + list(training.buffers())
        with LiveBytes(held) as live, Flops() as flops:
            saved = SavedBytes(held)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed), saved:
                with forward_flops(parts(training.model), flops) as forward:
                    loss = empty_loss(training, batch_size)
            loss.backward()
    return StepCost(dict(forward), flops.total, saved.total, live.peak)


def empty_loss(training: LatentDiffusionTraining, n: int) -> Tensor:
    """The mean loss over n items of the right shapes and any values."""
    size, conditioner = training.model.image_size, training.model.conditioner
    batch = {"image": torch.empty(n, 3, size, size), "mask": torch.empty(n, 1, size, size)}
    if conditioner is not None:
        batch["exemplar"] = torch.empty(n, 3, conditioner.image_size, conditioner.image_size)
    t, drop = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
    return training.loss(batch, t, drop, NoNumbers(n)).mean()


class NoNumbers:
    """Stands for `ldm.utils.random.NoiseSource`."""

    def __init__(self, n: int):
        self.n = n

    def randn(self, *shape: int) -> Tensor:
        return torch.empty(self.n, *shape)


def parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The networks of a latent diffusion model that a training step runs."""
    found = {"UNet": [model.unet], "VAE encoder": [model.autoencoder.encoder, model.autoencoder.quant_conv]}
    if model.conditioner is not None:
        conditioner = model.conditioner
        found |= {
            "CLIP": [conditioner.encoder],
            "bottleneck": [conditioner.mapper, conditioner.final_ln, conditioner.proj_out],
        }
    return found


@contextmanager
def forward_flops(modules: dict[str, list[nn.Module]], flops: "Flops") -> Iterator[Counter]:
    """Within it, a running count of the FLOP of each group's forward passes."""
    counts = Counter()

    def add(name: str, sign: int) -> Callable:
        def hook(*_: Any) -> None:
            counts[name] += sign * flops.total

        return hook

    with ExitStack() as hooks:
        for name, group in modules.items():
            for module in group:
                hooks.enter_context(module.register_forward_pre_hook(add(name, -1)))
                hooks.enter_context(module.register_forward_hook(add(name, 1)))
        yield counts


class SavedBytes(saved_tensors_hooks):
    """Counts the storages that autograd saves, each once, but for those of `parameters`."""

    def __init__(self, parameters: Iterable[Tensor] = ()):
        super().__init__(self.pack, lambda tensor: tensor)
        self.seen = weakref.WeakSet(tensor.untyped_storage() for tensor in parameters)
        self.total = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            self.total += storage.nbytes()
        return tensor


class Flops(TorchDispatchMode):
    """Counts floating-point operations. (torch's FlopCounterMode also follows modules, which keeps tensors alive.)"""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=made)
        return made


class LiveBytes(TorchDispatchMode):
    """Follows the storages made within it until they are freed; `peak` is the most bytes there were at once."""

    def __init__(self, before: Iterable[Tensor] = ()):
        super().__init__()
        self.seen = weakref.WeakSet(tensor.untyped_storage() for tensor in before)
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self.seen:
                self.add(tensor.untyped_storage())
        return made

    def add(self, storage: torch.UntypedStorage) -> None:
        self.seen.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, count: int) -> None:
        self.now -= count


@contextmanager
def norms_in_float32() -> Iterator[None]:
    """Norms compute in float32, as autocast has it on a CUDA device, and keep float32 for the backward pass."""

    def in_float32(norm: Callable) -> Callable:
        return lambda x, *args, **kwargs: norm(x.float(), *args, **kwargs)

    with patch.multiple(F, **{name: in_float32(getattr(F, name)) for name in ("group_norm", "layer_norm")}):
        yield
