"""Samplers: functions `(denoise, x, schedule, timesteps, *, end, noise, callback, hook) -> x`, free of networks."""

from ldm.samplers.ddim import ddim
from ldm.samplers.ddpm import ddpm
from ldm.samplers.dpm_solver import dpm_solver
from ldm.samplers.plms import plms

SAMPLERS = {"ddim": ddim, "ddpm": ddpm, "dpm_solver": dpm_solver, "plms": plms}
