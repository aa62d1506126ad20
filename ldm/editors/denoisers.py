"""Denoisers of conditioned models: network, condition and guidance in one function, as samplers take it."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.guidance import classifier_free_guidance, classifier_gradient, classifier_guidance
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.samplers.common import Denoise
from ldm.utils.errors import UserError

log = logging.getLogger(__name__)


def exemplar_denoiser(
    model: LatentDiffusion, image: Tensor, mask: Tensor, context: Tensor, noise: Tensor, scale: float
) -> Denoise:
    """Return a denoiser that paints what an exemplar shows into the hole of a scene.

    Args:
        model: with a 9-channel UNet and an `ExemplarConditioner`.
        image: (B or 1, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
        mask: (B or 1, 1, H, W), 1 = repaint.
        context: (B or 1, L, C), the conditioner's output for the exemplar.
        noise: (B, c, h, w), for the sample of the posterior of the masked scene's latent.
        scale: guidance scale.
    """
    image, mask, noise = (v.to(next(model.parameters())) for v in (image, mask, noise))
    batch, concat = len(noise), model.inpainting_channels(image, mask, noise)
    if bool((concat[:, -1] == 1).all()):
        log.warning("the mask is too small for the model's latents to show it; --crop auto enlarges it")
    return classifier_free_guidance(
        Denoiser(model.unet, model.schedule, model.prediction, concat),
        cond=context.expand(batch, -1, -1),
        uncond=model.conditioner.unconditional(batch),
        scale=scale,
    )


def prompt_denoiser(model: LatentDiffusion, prompts: Sequence[str], negatives: Sequence[str], scale: float) -> Denoise:
    """Return a denoiser that makes what each prompt of the batch says, guided away from the negative one beside it.

    Args:
        model: with a `TextConditioner`.
    """

    def contexts(prompts: Sequence[str]) -> Tensor:
        different = list(dict.fromkeys(prompts))  # the encoder reads each once
        return model.conditioner(different)[[different.index(prompt) for prompt in prompts]]

    return classifier_free_guidance(
        Denoiser(model.unet, model.schedule, model.prediction),
        cond=contexts(prompts),
        uncond=contexts(negatives),
        scale=scale,
    )


def class_denoiser(
    model: PixelDiffusion | LatentDiffusion,
    class_ids: Sequence[int | None],
    classifier: nn.Module | None,
    scale: float,
    ancestral: bool,
) -> tuple[Denoise, Denoise | None]:
    """Return a denoiser that makes pictures of one class each, or of no class, and a gradient for ancestral samplers.

    The gradient is what `ddpm` and `repaint` take; other samplers have the classifier inside their denoiser.

    Args:
        model: without a conditioner.
        class_ids: one for each picture of the batch, checked by `check_class`.
        classifier: guides with the strength `scale`, if there is one.
        ancestral: for an ancestral sampler, which also uses the variance that the network predicts.
    """
    y = None if None in class_ids else torch.tensor(class_ids, device=model.device)
    schedule, pixels = model.schedule, isinstance(model, PixelDiffusion)

    def network(x: Tensor, t: Tensor, context: None) -> Tensor:
        return model.unet(x, t, y=y if model.unet.num_classes else None)

    denoise = Denoiser(network, schedule, model.prediction, clip_x0=pixels, keep_variance=ancestral)
    if classifier is None:
        return denoise, None
    gradient = classifier_gradient(classifier, y, scale)
    return (denoise, gradient) if ancestral else (classifier_guidance(denoise, gradient, schedule), None)


def check_classifier(classifier: nn.Module | None) -> None:
    """Check that a classifier has the attribute `num_classes`.

    Raises:
        UserError: it has not, or the number is not positive.
    """
    count = getattr(classifier, "num_classes", None)
    if classifier is not None and not (isinstance(count, int) and count > 0):
        raise UserError(
            f"classifier: {type(classifier).__name__}.num_classes is {count}, expected a whole number above 0"
        )


def check_class(model: nn.Module, class_id: int | None, classifier: nn.Module | None) -> None:
    """Check the class for a model and a classifier.

    Raises:
        UserError: a class is needed and missing, is not among theirs, or cannot be used.
    """
    known = [n for n in (getattr(model, "num_classes", None), getattr(classifier, "num_classes", None)) if n]
    if not known:
        if class_id is not None:
            raise UserError(f"class_id {class_id}: this model is not class-conditional, expected no class_id")
    elif len(set(known)) > 1:
        raise UserError(f"the model has {known[0]} classes and the classifier {known[1]}, expected the same number")
    elif class_id is None:
        raise UserError(
            f"class_id: missing; this model is class-conditional, expected a number from 0 to {known[0] - 1}"
        )
    elif not 0 <= class_id < known[0]:
        raise UserError(f"class_id {class_id}: expected a number from 0 to {known[0] - 1}")
