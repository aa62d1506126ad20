"""The network as samplers call it: noisy sample and timestep in, predicted noise out."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.diffusion.losses import check_prediction
from ldm.diffusion.process import eps_from_v, eps_from_x0, model_x0
from ldm.diffusion.schedule import Schedule, levels_at
from ldm.diffusion.variance import split


class Denoiser:
    """Adapter of a network for samplers: extra input channels, kind of prediction, precision, predicted variance.

    Args:
        network: `(x (B, C, H, W), t (B,), context) -> (B, c or 2c, H, W)`.
        schedule: the one the network was trained with.
        prediction: what the network predicts, `eps` or `v`.
        concat: (B, C - c, H, W) appended to x along the channels, for models that edit inside a mask; repeated for a
            batch that guidance has doubled.
        clip_x0: change the noise so that the clean sample it implies is in [-1, 1]: for models of pictures.
        keep_variance: return the predicted variance too, c more channels behind the noise; only the samplers `ddpm`
            and `repaint` use it.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule,
        prediction: str = "eps",
        concat: Tensor | None = None,
        clip_x0: bool = False,
        keep_variance: bool = False,
    ):
        self.network = network
        self.schedule = schedule
        self.prediction = check_prediction(prediction)
        self.concat = concat
        self.clip_x0, self.keep_variance = clip_x0, keep_variance
        self._repeated: dict[int, Tensor] = {}
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the noise in x (B, c, H, W) at timesteps t (B,), whole or fractional, in x's dtype."""
        channels = x if self.concat is None else torch.cat([x, self._repeat(self.concat, len(x))], dim=1)
        output, predicted_variance = split(self.network(channels, t, context).to(x.dtype), x.shape[1])
        eps = self._eps(x, output, t)
        return (
            torch.cat([eps, predicted_variance], dim=1)
            if self.keep_variance and predicted_variance is not None
            else eps
        )

    def _eps(self, x: Tensor, output: Tensor, t: Tensor) -> Tensor:
        if self.prediction == "eps" and not self.clip_x0:
            return output
        alpha_cumprod = self._alpha_cumprod_at(t, x)
        if not self.clip_x0:
            return eps_from_v(x, output, alpha_cumprod)
        return eps_from_x0(x, model_x0(self.prediction, x, output, alpha_cumprod).clamp(-1, 1), alpha_cumprod)

    def _repeat(self, concat: Tensor, rows: int) -> Tensor:
        """Return `concat` repeated to that many rows, made once and not at every step."""
        if rows not in self._repeated:
            if rows % len(concat):
                raise ValueError(f"concat has {len(concat)} rows, expected a divisor of the batch of {rows}")
            self._repeated[rows] = torch.cat([concat] * (rows // len(concat)))
        return self._repeated[rows]

    def _alpha_cumprod_at(self, t: Tensor, x: Tensor) -> Tensor:
        """Return alphas_cumprod at t, shaped to broadcast against x; the table moves to the device once."""
        key = x.device, torch.promote_types(x.dtype, torch.float32)
        if key not in self._tables:
            self._tables[key] = self.schedule.alphas_cumprod.to(*key)
        return levels_at(self._tables[key], t).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
