"""Contrastive training of an image and a text tower (CLIP; Radford et al., 2103.00020, section 2.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.models.contrastive import ContrastiveClip
from ldm.training.base import Optimisation, Training
from ldm.utils.errors import UserError


class ContrastiveTraining(Training):
    """Symmetric cross-entropy between the pictures and captions of a batch.

    In a small world the same caption occurs several times in one batch: all its pictures are right answers, so the
    target is spread evenly over equal captions instead of being the diagonal.

    The negatives of a picture are the rest of its batch, so the batch has to be on one device and in one piece.
    """

    def __init__(
        self,
        clip: ContrastiveClip,
        optimisation: Optimisation,
    ):
        super().__init__(optimisation)
        self.clip = clip

    def weights(self) -> dict[str, Tensor]:
        return self.clip.state_dict()

    def on_fit_start(self) -> None:
        if (pieces := self.trainer.world_size * self.trainer.accumulate_grad_batches) > 1:
            raise UserError(f"contrastive training: expected the batch in one piece, found it split into {pieces}; "
                            "set trainer.devices=1 and no data.params.batch_per_device")  # fmt: skip

    def logits(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Return the scaled similarities (B pictures, B captions) and the target distribution of the same shape."""
        ids = self.clip.tokenizer(batch["caption"]).to(batch["pixels"].device)
        image, text = self.clip(batch["pixels"], ids)
        same = (ids[:, None] == ids[None]).all(-1).float()
        return self.clip.logit_scale.exp() * image @ text.T, same / same.sum(1, keepdim=True)

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        logits, target = self.logits(batch)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        self.report(loss=loss)
        return loss

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():  # the paper caps the temperature at 100
            self.clip.logit_scale.clamp_(max=4.6052)

    def validation_step(self, batch: dict, batch_index: int) -> None:
        """Log the share of pictures whose nearest caption in the batch is right."""
        logits, target = self.logits(batch)
        right = target.gather(1, logits.argmax(1, keepdim=True)) > 0
        self.log("val/retrieval", right.float().mean(), batch_size=len(target), sync_dist=True)
