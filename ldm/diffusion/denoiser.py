"""The network as samplers want it: noisy sample and timestep in, predicted noise out."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.diffusion.losses import check_prediction
from ldm.diffusion.process import eps_from_v
from ldm.diffusion.schedule import Schedule


class Denoiser:
    """Adapts a network once, at the edge: extra input channels, its kind of prediction, its precision.

    Args:
        network: `(x (B, C, H, W), t (B,) int64, context) -> (B, c, H, W)`.
        schedule: the one the network was trained with.
        prediction: what the network predicts, `eps` or `v`.
        concat: (B, C - c, H, W) put behind x along the channels, for models that edit inside a mask; repeated for a
            batch that guidance has doubled.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule,
        prediction: str = "eps",
        concat: Tensor | None = None,
    ):
        self.network = network
        self.schedule = schedule
        self.prediction = check_prediction(prediction)
        self.concat = concat
        self._repeated: dict[int, Tensor] = {}
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise in x (B, c, H, W) at timesteps t (B,), in x's dtype whatever precision the network runs in."""
        channels = x if self.concat is None else torch.cat([x, self._concat_for(len(x))], dim=1)
        output = self.network(channels, t, context).to(x.dtype)
        return output if self.prediction == "eps" else eps_from_v(x, output, self._alpha_cumprod_at(t, x))

    def _concat_for(self, rows: int) -> Tensor:
        """`concat` repeated to that many rows, made once and not at every step."""
        if rows not in self._repeated:
            if rows % len(self.concat):
                raise ValueError(f"a batch of {rows} is no multiple of the {len(self.concat)} rows of concat")
            self._repeated[rows] = torch.cat([self.concat] * (rows // len(self.concat)))
        return self._repeated[rows]

    def _alpha_cumprod_at(self, t: Tensor, x: Tensor) -> Tensor:
        """alphas_cumprod[t] shaped to broadcast against x; the table moves to the device once."""
        key = x.device, x.dtype
        if key not in self._tables:
            self._tables[key] = self.schedule.alphas_cumprod.to(x)
        return self._tables[key][t].view(-1, *[1] * (x.ndim - 1))
