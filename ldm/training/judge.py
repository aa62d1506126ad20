"""Training of the judge of ToyWorld edits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.training.base import Optimisation, Training


class JudgeTraining(Training):
    """Cross-entropy, summed over the judge's heads.

    Args:
        judge: maps (images, boxes) to logits (B, answers) by head, as `ldm.toyworld.judge.Judge`.
    """

    def __init__(
        self,
        judge: nn.Module,
        optimisation: Optimisation,
    ):
        super().__init__(optimisation)
        self.judge = judge.to(memory_format=torch.channels_last)

    def weights(self) -> dict[str, Tensor]:
        return self.judge.state_dict(prefix="judge.")

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        logits = self.judge(batch["image"], batch["box"])
        loss = sum(F.cross_entropy(answer.float(), batch[name]) for name, answer in logits.items())
        self.report(loss=loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Log the share of right answers of each head, and of things on which all heads are right."""
        right = {
            name: logits.argmax(1) == batch[name] for name, logits in self.judge(batch["image"], batch["box"]).items()
        }
        right["all"] = torch.stack(list(right.values())).all(0)
        shares = {f"val/{name}": answers.float().mean() for name, answers in right.items()}
        self.log_dict(shares, batch_size=len(batch["box"]), sync_dist=True)
