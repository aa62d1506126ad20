"""A judge of ToyWorld edits: a classifier of the class, colour and pattern of a thing in a picture.

It is trained on the renderer alone, never on a generated picture: its verdict on an edit is independent of the model.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.utils.errors import UserError

PADDING = 2  # pixels of surroundings that the judge sees around a box


def crop(images: Tensor, boxes: Tensor, size: int, padding: float = PADDING) -> Tensor:
    """Cut one box out of every image and stretch it to a square, bilinearly.

    Args:
        images: (B, C, H, W).
        boxes: (B, 4), x0, y0, x1, y1 in pixels; x1 and y1 exclusive. Fractions are allowed.
        padding: pixels added on each side; outside the image its border is repeated.

    Returns:
        (B, C, size, size)
    """
    height, width = images.shape[-2:]
    if (boxes[:, 2:] <= boxes[:, :2]).any():
        raise UserError("judge: empty box, expected x0 < x1 and y0 < y1")
    low, high = boxes[:, :2].float() - padding, boxes[:, 2:].float() + padding
    centres = (torch.arange(size, device=images.device) + 0.5) / size
    points = (
        low[:, None] + (high - low)[:, None] * centres[None, :, None]
    )  # (B, size, 2): x and y of the columns and rows
    x = 2 * points[..., 0] / width - 1
    y = 2 * points[..., 1] / height - 1
    grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


class Judge(nn.Module):
    """A small convolutional classifier with one head per question.

    Args:
        heads: name of the question -> number of answers, e.g. {"class": 10, "colour": 8, "pattern": 4}.
        size: side of its input crop in pixels.
        width: channels of the first stage; the other three have 2, 3 and 4 times as many.
    """

    def __init__(self, heads: Mapping[str, int], size: int, width: int):
        super().__init__()
        self.size = size
        channels = [3, width, 2 * width, 3 * width, 4 * width]
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in zip(channels, channels[1:], strict=False)))
        self.heads = nn.ModuleDict({name: nn.Linear(channels[-1], answers) for name, answers in heads.items()})

    def forward(self, images: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Compute the logits (B, answers) of every head for the thing in each box.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            boxes: (B, 4), x0, y0, x1, y1 in pixels; x1 and y1 exclusive.
        """
        features = self.features(images, boxes)
        return {name: head(features) for name, head in self.heads.items()}

    def features(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Compute the input of the heads for the thing in each box, (B, 4 width)."""
        return self.stages(crop(images, boxes, self.size)).mean((2, 3))

    @torch.no_grad()
    def correct(self, images: Tensor, boxes: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return whether each head is right, (B,) bool by head, and under `all` whether all are. Labels are int64."""
        right = {name: logits.argmax(1) == labels[name] for name, logits in self(images, boxes).items()}
        return right | {"all": torch.stack(list(right.values())).all(0)}


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions, the second of which halves the resolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
        nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
    )
