"""What a model is told about the picture to make: network, condition and guidance together, as samplers want them."""

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
    """To paint what an exemplar shows into the hole of a scene.

    Args:
        model: with a 9-channel UNet and an `ExemplarConditioner`.
        image: (B or 1, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
        mask: (B or 1, 1, H, W), 1 = repaint.
        context: (B or 1, L, C), what the conditioner made of the exemplar.
        noise: (B, c, h, w), samples the posterior of the masked scene's latent.
        scale: of guidance.
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
    """To make what each prompt of the batch says, guided away from the negative one beside it.

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
    """To make pictures of a class each, or all of none.

    The second that is returned is the `gradient` that samplers of the kind of `ddpm` take.

    Args:
        model: without a conditioner.
        class_ids: of the batch, checked by `check_class`.
        classifier: guides by `scale`, if there is one.
        ancestral: for a sampler of that kind, which the network tells its variance too.
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
    """
    Raises:
        UserError: it does not say how many classes it tells apart.
    """
    count = getattr(classifier, "num_classes", None)
    if classifier is not None and not (isinstance(count, int) and count > 0):
        raise UserError(f"classifier: num_classes of {type(classifier).__name__} is {count}, expected a whole number")


def check_class(model: nn.Module, class_id: int | None, classifier: nn.Module | None) -> None:
    """
    Raises:
        UserError: the class that a model or a classifier needs is missing, not among its own, or of no use.
    """
    known = [n for n in (getattr(model, "num_classes", None), getattr(classifier, "num_classes", None)) if n]
    if not known:
        if class_id is not None:
            raise UserError(f"class_id {class_id}: this model knows no classes")
    elif len(set(known)) > 1:
        raise UserError(f"the model has {known[0]} classes and the classifier {known[1]}, expected the same")
    elif class_id is None:
        raise UserError(f"class_id: this model is class-conditional, expected one of 0 to {known[0] - 1}")
    elif not 0 <= class_id < known[0]:
        raise UserError(f"class_id {class_id}: expected one of 0 to {known[0] - 1}")
