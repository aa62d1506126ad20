"""The cost of a training step, measured without a GPU: its arithmetic, and the memory of its activations.

The step runs, forward and backward, on tensors that have shapes and lifetimes but no values. They are on the CPU, where
autograd saves the same tensors as on a CUDA device: for attention q, k, v, the output and one number per row, not the
L x L weights. Among autocast's rules only the one for norms differs; it is replaced by CUDA's.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
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
    """The cost of one forward and backward pass over a batch, on one device.

    Args:
        forward: FLOP of each part's forward pass; a multiply-add counts as 2.
        flops: FLOP of the whole step: forward, backward, and what activation checkpointing recomputes.
        saved: bytes that autograd saves for the backward pass, excluding parameters, including their bf16 copies.
        activations: peak bytes beyond weights and gradients, temporary tensors included.
    """

    forward: dict[str, int]
    flops: int
    saved: int
    activations: int


def step_cost(training: LatentDiffusionTraining, batch_size: int, mixed: bool = True) -> StepCost:
    """Run a step of a training that was built on the meta device, and cannot be used afterwards.

    Args:
        training: unconditional or exemplar training.
        batch_size: items on one device.
        mixed: bf16 autocast, otherwise float32.

    Raises:
        UserError: the training is of another kind, or has an operation whose FLOP cannot be counted.
    """
    conditioner = training.model.conditioner if isinstance(training, LatentDiffusionTraining) else False
    if not (conditioner is None or isinstance(conditioner, ExemplarConditioner)):
        raise UserError(
            f"{type(training).__name__}: expected an exemplar or unconditional training, whose cost can be measured"
        )
    cpu = patch.object(type(training), "device", torch.device("cpu"))  # Lightning's, which `to_empty` does not set
    with FakeTensorMode(allow_non_fake_inputs=True), norms_in_float32(), cpu:
        training.to_empty(device="cpu")
        for parameter in training.parameters():  # of the previous step or micro-batch
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
    """Return the mean loss over n items of the right shapes and arbitrary values."""
    size, conditioner = training.model.image_size, training.model.conditioner
    batch = {"image": torch.empty(n, 3, size, size), "mask": torch.empty(n, 1, size, size)}
    if conditioner is not None:
        batch["exemplar"] = torch.empty(n, 3, conditioner.image_size, conditioner.image_size)
    t, drop = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
    return training.loss(batch, t, drop, NoNumbers(n)).mean()


class NoNumbers:
    """A stand-in for `ldm.utils.random.NoiseSource` that returns uninitialised tensors."""

    def __init__(self, n: int):
        self.n = n

    def randn(self, *shape: int) -> Tensor:
        return torch.empty(self.n, *shape)


def parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Return the networks of a latent diffusion model that a training step runs, by name."""
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
    """Count the FLOP of each group's forward passes while the block runs."""
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
    """A count of the bytes that autograd saves, each storage once, except those of `parameters`."""

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


def attention_flops(q: Tensor, k: Tensor, v: Tensor, *others: Any, **options: Any) -> int:
    """Count the FLOP of softmax(q k^T) v with q (..., L, d), k (..., M, d) and v (..., M, e): two products."""
    return 2 * prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def attention_backward_flops(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: Any, **options: Any) -> int:
    """Count the FLOP of the gradients of q, k, v and softmax(q k^T), and of q k^T recomputed: five products."""
    return 2 * prod(q.shape[:-1]) * k.shape[-2] * (3 * q.shape[-1] + 2 * v.shape[-1])


# Operations that are counted. Which attention kernels torch's own table holds depends on torch's version.
FORMULAS = {
    f"aten.{name}": flop_registry[getattr(torch.ops.aten, name)]
    for name in ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")
}
for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention"):
    FORMULAS[f"aten._scaled_dot_product_{kernel}"] = attention_flops
    FORMULAS[f"aten._scaled_dot_product_{kernel}_backward"] = attention_backward_flops

# Operations that are not counted, by convention: like views and element-wise operations, they do little per element.
# New tensors; copies; sums, norms and softmax; resized pictures.
LEFT_OUT = {"prim.device"} | {
    f"aten.{name}"
    for name in """
    arange bernoulli_ empty empty_like empty_strided eye fill_ full full_like linspace new_empty new_empty_strided
    new_full new_ones new_zeros normal_ ones ones_like rand rand_like randn randn_like scalar_tensor uniform_ zero_
    zeros zeros_like

    _local_scalar_dense _to_copy _unsafe_view cat clone constant_pad_nd copy_ embedding embedding_dense_backward flip
    gather index index_put index_put_ index_select masked_fill_ repeat roll select_backward slice_backward stack tril
    triu

    _fused_rms_norm _fused_rms_norm_backward _log_softmax _log_softmax_backward_data _safe_softmax _softmax
    _softmax_backward_data all amax amin any argmax cumprod cumsum linalg_vector_norm max mean min native_batch_norm
    native_batch_norm_backward native_dropout native_group_norm native_group_norm_backward native_layer_norm
    native_layer_norm_backward std sum var var_mean

    avg_pool2d avg_pool2d_backward max_pool2d_with_indices max_pool2d_with_indices_backward upsample_bilinear2d
    upsample_bilinear2d_backward upsample_nearest2d upsample_nearest2d_backward
    """.split()
}


class Flops(TorchDispatchMode):
    """A count of floating-point operations. (torch's FlopCounterMode also tracks modules, which keeps tensors alive.)

    Raises:
        UserError: an operation is neither counted nor known to be cheap.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = str(function.overloadpacket), kwargs or {}
        formula = FORMULAS.get(name)
        if not (formula or name in LEFT_OUT or function.is_view or torch.Tag.pointwise in function.tags):
            raise UserError(f"operation {name}: FLOP cannot be counted, {__name__} has no formula for it")
        made = function(*args, **kwargs)
        if formula:
            self.total += formula(*args, **kwargs, out_val=made)
        return made


class LiveBytes(TorchDispatchMode):
    """A tracker of the storages created in its block until they are freed; `peak` is the most bytes alive at once."""

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
    """Compute norms in float32 and save float32 for the backward pass, as autocast does on a CUDA device."""

    def in_float32(norm: Callable) -> Callable:
        return lambda x, *args, **kwargs: norm(x.float(), *args, **kwargs)

    with patch.multiple(F, **{name: in_float32(getattr(F, name)) for name in ("group_norm", "layer_norm")}):
        yield
