"""RePaint (Lugmayr et al., 2201.09865): a model of whole pictures fills a hole by jumping back and forth in time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.process import q_sample, x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.samplers.common import Callback, Denoise, Noise, draw, time_grid
from ldm.samplers.ddim import check_eta, ddim_sigma, ddim_step
from ldm.samplers.ddpm import Level, ddpm_levels, ddpm_step
from ldm.samplers.dpm_solver import dpm_solver_step
from ldm.utils.errors import UserError

REVERSE = ("ddpm", "ddim", "dpm_solver")
"""Samplers that can take the steps down."""

LONGEST = 1_000_000
"""The most steps of a walk, up and down; the paper's has 4570."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """RePaint's walk back and forth in time.

    At times 0, jump_length, 2 jump_length, ... (below steps - jump_length) the walk goes jump_length up again, until it
    has passed jump_n_sample times (algorithm 1, where the length is 1, and section 4.2). That is all of the paper's
    schedule; the other attributes are those of its code.

    Attributes:
        jump_length: steps that a jump goes up.
        jump_n_sample: how often each part of the way down is walked, 1 for no jumps.
        n_sample: how often each single step is taken.
        jump2_length, jump2_n_sample, jump3_length, jump3_n_sample: shorter jumps within; a longer jump restores the
            shorter ones, wherever they are.
        start_resampling: no jumps from above this time; None: everywhere.
    """

    jump_length: int
    jump_n_sample: int
    n_sample: int = 1
    jump2_length: int = 1
    jump2_n_sample: int = 1
    jump3_length: int = 1
    jump3_n_sample: int = 1
    start_resampling: int | None = None


def jump_schedule(steps: int, walk: Walk) -> list[int]:
    """Return the times of a walk from steps - 1 down to -1, clean data, with jumps back up; neighbours differ by 1.

    Raises:
        UserError: a count is not positive, a jump as long as the schedule, or the walk longer than `LONGEST`.
    """
    jumps = (
        (walk.jump_length, walk.jump_n_sample),
        (walk.jump2_length, walk.jump2_n_sample),
        (walk.jump3_length, walk.jump3_n_sample),
    )
    start = steps if walk.start_resampling is None else walk.start_resampling
    for name, value in [("steps", steps), ("n_sample", walk.n_sample), ("start_resampling", start)]:
        _check_positive(name, value)
    for prefix, (length, count) in zip(("jump", "jump2", "jump3"), jumps, strict=True):
        _check_positive(f"{prefix}_length", length)
        _check_positive(f"{prefix}_n_sample", count)
        if count > 1 and length >= steps:
            raise UserError(f"{prefix}_length {length}: expected less than the {steps} steps of the schedule")
    return list(_times(steps, walk.n_sample, jumps, start))


@lru_cache(maxsize=4)  # the same settings ask for their walk many times
def _times(steps: int, n_sample: int, jumps: tuple[tuple[int, int], ...], start_resampling: int) -> tuple[int, ...]:
    """Return the times of `jump_schedule`, whose arguments are checked there."""
    taken: list[dict[int, int]] = [{}, {}, {}]  # by kind of jump: the number taken at each time
    t, times = steps, []
    while t > 0:
        t -= 1
        times.append(t)
        again = t + 1 < steps - 1 and t <= start_resampling
        if len(times) + 2 * (n_sample - 1) * again > LONGEST:
            raise UserError(
                f"the walk of {steps} steps takes more than {LONGEST:,} with all its jumps, expected smaller "
                "n_sample, jump_n_sample, jump2_n_sample or jump3_n_sample"
            )
        if again:
            times += [t + 1, t] * (n_sample - 1)
        for k in (2, 1, 0):
            length, count = jumps[k]
            there = t % length == 0 and t < steps - length and t <= start_resampling - length
            if there and taken[k].get(t, 0) < count - 1:
                taken[k][t] = taken[k].get(t, 0) + 1
                taken[k + 1 :] = [{} for _ in taken[k + 1 :]]
                times += range(t + 1, t + length + 1)
                t += length
    return *times, -1


def network_calls(times: Sequence[int]) -> int:
    """Return the number of network calls of a walk: one for each step down."""
    return sum(after < before for before, after in pairwise(times))


class StepDown:
    """The steps down of RePaint, by one sampler.

    Args:
        reverse: `ddpm` as in the paper, `ddim` (2010.02502), or `dpm_solver`, DPM-Solver++(2M) (2211.01095), which
            starts afresh after each step up.
        variance: of the steps of `ddpm`, see `ldm.diffusion.variance`; if it is learned, `denoise` returns it.
        eta: of the steps of `ddim`.
        gradient: see `ldm.samplers.ddpm.ddpm`; only for the steps of `ddpm` (others take it inside `denoise`).
    """

    def __init__(
        self,
        reverse: str = "ddpm",
        variance: str = "fixed_small",
        eta: float = 0.0,
        gradient: Denoise | None = None,
    ):
        if reverse not in REVERSE:
            raise UserError(f"sampler {reverse!r}: expected one of {', '.join(REVERSE)} for RePaint's steps down")
        check_eta(eta)
        self.reverse, self.variance, self.eta, self.gradient = reverse, variance, eta, gradient
        self.noisy = reverse == "ddpm" or (reverse == "ddim" and eta > 0)
        self.restart()

    def restart(self) -> None:
        """Forget the history of a multistep solver."""
        self.before: tuple[Tensor, float] | None = None

    def __call__(self, x: Tensor, t: Tensor, output: Tensor, level: Level, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take one step down from timesteps t (B,): return the new x and the predicted x0; see `ddpm_step`."""
        if self.reverse == "ddpm":
            shift = None if self.gradient is None else self.gradient(x, t)
            return ddpm_step(x, output, level, self.variance, z, shift)
        alphas = level.alpha, level.alpha_prev
        if self.reverse == "ddim":
            return ddim_step(x, output, *alphas, ddim_sigma(*alphas, self.eta), z)
        x0 = x0_from_eps(x, output, level.alpha)
        x, self.before = dpm_solver_step(x, x0, *alphas, self.before), (x0, level.alpha)
        return x, x0


class Known(NamedTuple):
    """The part of the samples that is known.

    Attributes:
        samples: (B or 1, ...) clean; their values in the hole do not count.
        hole: broadcasts against them, 1 (or true) where nothing is known.
    """

    samples: Tensor
    hole: Tensor


@torch.no_grad()
def repaint(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[float],
    times: Sequence[int],
    known: Known,
    down: StepDown,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Fill the hole from x (B, ...), pure noise; one call of `denoise` per step down.

    Before each step down except the first, everything outside the hole becomes the known samples, noised to the level
    of that step; a step up adds the noise of one step. The order of operations is the original's, except that outside
    the hole the result is exactly what is known.

    Args:
        timesteps: the grid, descending; a time k stands for the k-th of them counted from the end.
        times: the walk over the grid, see `jump_schedule`.
        down: how the steps down are taken; it starts afresh.
        noise: the noise of a step down is drawn first, then that of the known samples.
    """
    steps = list(reversed(time_grid(timesteps, schedule, x)))  # by time
    top = len(steps) - 1
    if times[0] != top or times[-1] != -1 or not all(abs(b - a) == 1 and b <= top for a, b in pairwise(times)):
        raise ValueError(
            f"times from {times[0]} to {times[-1]}: expected a walk from {top} to -1, as jump_schedule returns it"
        )
    levels = list(reversed(ddpm_levels(schedule, [step.t for step in reversed(steps)], down.variance)))
    hole, calls = known.hole > 0, 0
    down.restart()
    for now, then in pairwise(times):
        level = levels[now]
        if then > now:
            beta = 1 - levels[then].alpha / level.alpha
            x = (1 - beta) ** 0.5 * x + beta**0.5 * draw(noise, x)
            down.restart()
            continue
        z = draw(noise, x) if down.noisy and then >= 0 else None
        if calls > 0:
            x = torch.where(hole, x, q_sample(known.samples, draw(noise, x), level.alpha))
        t_batch = steps[now].t_batch
        x, x0 = down(x, t_batch, denoise(x, t_batch), level, z)
        if callback is not None:
            callback(calls, steps[now].t, x, x0)
        calls += 1
    return torch.where(hole, x, known.samples)


def _check_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} {value!r}: expected a whole number, 1 or more")
