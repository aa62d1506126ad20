"""Trials of a model's networks: one after another, in each precision, on known pictures."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ldm.checkpoints.load import fill, take
from ldm.diffusion.losses import diffusion_target
from ldm.diffusion.process import q_sample
from ldm.doctor.report import Finding
from ldm.doctor.weights import MASK_FIRST, MASK_LAST
from ldm.evaluation.metrics import pooled_psnr, psnr
from ldm.utils.clip import clip_normalise
from ldm.utils.errors import UserError
from ldm.utils.random import generator

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FINE, POOR = 25, 20  # dB of the autoencoder's round trip
SPREAD = 0.4, 2.5  # range of the scaled latents' standard deviation, ideally 1
BLIND = 0.5  # of the noise's variance: a network that leaves more unexplained is untrained
MARGIN = 1.25  # factor between the error of the right order and the next
TIMESTEP = 500  # of 1000: enough noise for the condition to matter, not so much that nothing does
KEEP, HOLE = "1 = keep", "1 = hole"
LAYOUTS: dict[tuple[str, str], Callable[[Tensor, Tensor], list[Tensor]]] = {
    (MASK_LAST, KEEP): lambda masked, keep: [masked, keep],
    (MASK_LAST, HOLE): lambda masked, keep: [masked, 1 - keep],
    (MASK_FIRST, HOLE): lambda masked, keep: [1 - keep, masked],
    (MASK_FIRST, KEEP): lambda masked, keep: [keep, masked],
}


class Trial:
    """A trial of a model's networks one after another, which needs memory only for the largest.

    Args:
        model: a `LatentDiffusion` or a `PixelDiffusion` on the meta device.
        tensors: the weights in use.
        source: name of the file, for messages.
        pictures: (B, 3, S, S) in [-1, 1], S a multiple of `model.multiple`.
    """

    def __init__(
        self, model: nn.Module, tensors: Mapping[str, Tensor], source: str, pictures: Tensor, device: torch.device
    ):
        self.model, self.tensors, self.source, self.device = model, tensors, source, device
        self.pictures = pictures.to(device)
        self.outcomes: dict[str, dict[str, str]] = {}  # stage -> precision -> outcome
        self.reference: dict[str, Tensor] = {}  # stage -> its float32 result

    @torch.inference_mode()
    def run(self) -> tuple[list[Finding], dict[tuple[str, str], float]]:
        """Run the networks; return findings and the error of each layout of the input channels."""
        findings, errors = [], {}
        stages = {"conditioner": self._conditioner, "autoencoder": self._autoencoder, "unet": self._unet}
        present = [root for root in stages if getattr(self.model, root, None) is not None]
        missing = [root for root in present if not self._is_complete(root)]
        runnable = [root for root in present if root not in missing and (root != "unet" or not missing)]
        total = len(runnable) * len(PRECISIONS)
        with tqdm(total=total, desc="networks", unit="run", leave=False, disable=None) as bar:
            for root in runnable:
                for precision, dtype in PRECISIONS.items():
                    self._load(root, dtype)
                    stages[root](precision, dtype)
                    if precision == "fp32" and root == "autoencoder":
                        findings.append(self._round_trip())
                    if precision == "fp32" and root == "unet":
                        errors = self._layouts()
                    bar.update()
                getattr(self.model, root).to_empty(device="meta")  # frees memory for the next one
        if errors:
            findings.append(self._denoising(min(errors.values())))
        if missing:
            rest = "; the UNet is run only together with the others" if "unet" not in missing else ""
            text = f"incomplete in the files given: {', '.join(missing)}{rest}"
            findings.append(Finding("networks", "skipped", text))
        return findings + self._precisions(), errors

    def _is_complete(self, root: str) -> bool:
        try:
            self._values(root, torch.device("meta"), torch.float32)
        except UserError:
            return False
        return True

    def _values(self, root: str, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        network = getattr(self.model, root)
        shapes = {f"{root}.{name}": tensor.shape for name, tensor in network.state_dict().items()}
        values = take(shapes, self.tensors, self.source, device=device, dtype=dtype, within=f"{root}.")
        return {name.removeprefix(f"{root}."): value for name, value in values.items()}

    def _load(self, root: str, dtype: torch.dtype) -> None:
        network = getattr(self.model, root).to_empty(device="meta")  # never two precisions in memory
        fill(network.eval(), self._values(root, self.device, dtype))

    def _autoencoder(self, precision: str, dtype: torch.dtype) -> None:
        encode = self.model.autoencoder.encode
        self._try("VAE encode", precision, lambda: encode(self.pictures.to(dtype)).mode())
        z = self.reference["VAE encode"].to(dtype)
        self._try("VAE decode", precision, lambda: self.model.autoencoder.decode(z))
        if precision == "fp32":
            hole = torch.zeros_like(self.pictures[:, :1])
            self.no_hole = self._condition(hole)
            quarter = hole.shape[-1] // 4
            hole[..., quarter:-quarter, quarter:-quarter] = 1
            self.with_hole = self._condition(hole)

    def _condition(self, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents of the masked pictures and the keep mask, separately."""
        shape = len(hole), *self.model.latent_shape(*hole.shape[-2:])
        channels = self.model.inpainting_channels(self.pictures, hole, torch.zeros(shape, device=self.device))
        return channels[:, :-1].nan_to_num(0, 0, 0), channels[:, -1:]

    def _conditioner(self, precision: str, dtype: torch.dtype) -> None:
        conditioner = self.model.conditioner
        if size := getattr(conditioner, "image_size", None):
            seen = clip_normalise(F.interpolate(self.pictures, (size, size), mode="bilinear") / 2 + 0.5)
            self._try("CLIP encode", precision, lambda: conditioner(seen.to(dtype)))
        else:
            self._try("CLIP encode", precision, lambda: conditioner.unconditional(1))
        if precision == "fp32":
            self.context = conditioner.unconditional(len(self.pictures)).clone()

    def _unet(self, precision: str, dtype: torch.dtype) -> None:
        noisy, _ = self._noisy()
        condition = LAYOUTS[MASK_LAST, KEEP](*self.with_hole) if self.model.unet.in_channels > noisy.shape[1] else []
        self._try("UNet step", precision, lambda: self._predict([noisy, *condition], dtype))

    def _predict(self, channels: list[Tensor], dtype: torch.dtype) -> Tensor:
        t = torch.full((len(channels[0]),), TIMESTEP, device=self.device)
        context = self.context.to(dtype) if self.model.conditioner is not None else None
        labels = torch.zeros_like(t) if self.model.unet.num_classes else None  # any class will do
        return self.model.unet(torch.cat(channels, 1).to(dtype), t, context, labels)

    def _noisy(self) -> tuple[Tensor, Tensor]:
        """Return noisy latents and the target of the network's prediction."""
        latent = hasattr(self.model, "autoencoder")
        z = self.model.scale_factor * self.reference["VAE encode"] if latent else self.pictures
        noise = torch.randn(z.shape, generator=generator("doctor")).to(self.device)
        alpha = self.model.schedule.alphas_cumprod[TIMESTEP].item()
        return q_sample(z, noise, alpha), diffusion_target(self.model.prediction, z, noise, alpha)

    def _layouts(self) -> dict[tuple[str, str], float]:
        """Return the prediction error for each layout of the condition.

        It is averaged over two cases: nothing hidden, where a network that reads its input correctly knows the noise
        exactly, and the middle hidden, where a network that takes the hole's grey for the picture's is wrong.
        """
        noisy, target = self._noisy()
        if self.model.unet.in_channels == noisy.shape[1]:
            return {("[noisy]", ""): self._error([noisy], target)}
        return {
            layout: sum(self._error([noisy, *feed(*seen)], target) for seen in (self.no_hole, self.with_hole)) / 2
            for layout, feed in LAYOUTS.items()
        }

    def _error(self, channels: list[Tensor], target: Tensor) -> float:
        predicted = self._predict(channels, torch.float32)[:, : target.shape[1]]  # a variance may follow
        return ((predicted - target).square().mean() / target.square().mean()).item()

    def _try(self, stage: str, precision: str, run: Callable[[], Tensor]) -> None:
        try:
            result = run().float()
        except (RuntimeError, NotImplementedError) as error:
            if precision == "fp32":
                raise
            self.outcomes.setdefault(stage, {})[precision] = "no memory" if "memory" in str(error) else "unsupported"
            return
        reference = self.reference.setdefault(stage, result.nan_to_num(0, 0, 0))  # do not pass NaN to the next stage
        if result.isfinite().all():
            off = ((result - reference).norm() / reference.norm()).item()
            outcome = "ok" if precision == "fp32" else f"ok ({100 * off:.1f} %)"
        else:
            outcome = "NaN" if result.isnan().any() else "inf"
        self.outcomes.setdefault(stage, {})[precision] = outcome

    def _round_trip(self) -> Finding:
        decibels = pooled_psnr(psnr(self.reference["VAE decode"], self.pictures))
        spread = (self.model.scale_factor * self.reference["VAE encode"]).std().item()
        text = f"round trip {decibels:.1f} dB, latents' standard deviation {spread:.2f} after scaling"
        if not decibels >= POOR or not SPREAD[0] <= spread <= SPREAD[1]:
            text += f" (expected {FINE} dB or more, and about 1): untrained, damaged or of another model"
            return Finding("autoencoder", "PROBLEM", text, f"autoencoder's round trip {decibels:.1f} dB")
        if decibels < FINE:
            return Finding("autoencoder", "note", text + ": poor", f"autoencoder's round trip {decibels:.1f} dB")
        return Finding("autoencoder", "ok", text)

    def _denoising(self, error: float) -> Finding:
        text = f"the UNet leaves {100 * error:.3g} % of the noise's variance unexplained at t = {TIMESTEP}"
        if not error < BLIND:
            return Finding("denoising", "PROBLEM", f"{text}: untrained or damaged", "the UNet does not denoise")
        return Finding("denoising", "ok", text)

    def _precisions(self) -> list[Finding]:
        if not self.outcomes:
            return []
        table = ["".join(f"{word:<14}" for word in ("", *PRECISIONS)).rstrip()]
        table += [
            "".join(f"{word:<14}" for word in (stage, *(row[precision] for precision in PRECISIONS))).rstrip()
            for stage, row in self.outcomes.items()
        ]
        failing = {
            precision: [stage for stage, row in self.outcomes.items() if row[precision] in ("NaN", "inf")]
            for precision in PRECISIONS
        }
        text = f"on {self.device}, in parentheses the difference from fp32"
        if failing["fp32"]:
            short = f"NaN or inf in {', '.join(failing['fp32'])}"
            return [Finding("precision", "PROBLEM", f"{short} even in fp32; {text}", short, table)]
        if failed := {precision: stages for precision, stages in failing.items() if stages}:
            overflows = "; ".join(
                f"{', '.join(stages)} overflows in {precision}" for precision, stages in failed.items()
            )
            other = " or ".join(precision for precision in PRECISIONS if precision not in failed)
            return [Finding("precision", "note", f"{overflows}: use {other}; {text}", f"use {other}", table)]
        return [Finding("precision", "ok", text, table=table)]
