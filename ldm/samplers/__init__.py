"""Samplers: functions `(denoise, x, schedule, timesteps, *, noise, callback, hook) -> x` that know no network."""

from ldm.samplers.ddim import ddim

SAMPLERS = {"ddim": ddim}
