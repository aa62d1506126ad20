"""RePaint's walks by the original's parameters."""

from ldm.samplers.repaint import Walk, jump_schedule


def walk(t_T: int, jump_length: int, jump_n_sample: int, **more: int) -> list[int]:
    return jump_schedule(t_T, Walk(jump_length=jump_length, jump_n_sample=jump_n_sample, **more))
