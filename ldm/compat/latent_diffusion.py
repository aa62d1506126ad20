"""The table for configs of the latent diffusion code (Paint by Example, Stable Diffusion 1.x)."""

import re
from typing import Any

from ldm.compat.table import Flat, Left, apply, each, flat

ORIGINAL = "ldm.models.diffusion.ddpm.LatentDiffusion"
IMAGE = "ldm.modules.encoders.modules.FrozenCLIPImageEmbedder"
BASES = {IMAGE: "v1.yaml", "ldm.modules.encoders.modules.FrozenCLIPEmbedder": "sd_v1.yaml"}
TRAINED = {"v1.yaml"}
CONDITIONER = "model.params.cond_stage_config.target"
LEVELS = "model.params.first_stage_config.params.ddconfig.ch_mult"
PRECISION = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}


def context_dim(width: int, theirs: Flat) -> Flat:
    if theirs[CONDITIONER] == IMAGE:
        return {f"model.params.{part}.params.context_dim": width for part in ("unet", "conditioner")}
    if width != 768:
        raise ValueError("expected 768, the width of CLIP's text tower")
    return {}


def devices(gpus: Any) -> int | list[int]:
    """Parse the original's devices: "0,1" and "0," are indices, 2 and "2" a number."""
    if not re.fullmatch(r"[1-9]\d*|\d+,(\d+,)*\d*", str(gpus)):
        raise ValueError("expected indices of devices (0,1 or 0,) or their number (2)")
    return [int(part) for part in str(gpus).split(",") if part] if "," in str(gpus) else int(gpus)


def batch(per_device: int, theirs: Flat) -> Flat:
    """Translate the batch size, which is per device in the original and per optimizer step here."""
    count = devices(theirs.get("lightning.trainer.gpus", theirs.get("lightning.trainer.devices", 1)))
    total = per_device * (len(count) if isinstance(count, list) else count)
    for name in ("num_nodes", "accumulate_grad_batches"):
        total *= theirs.get(f"lightning.trainer.{name}", 1)
    return {"data.params.batch_size": total, "data.params.batch_per_device": per_device}


def dataset(name: str, **recipe: str) -> dict:
    params = {"state": f"data.params.{name}.params.split", "dataset_dir": f"data.params.{name}.params.root"}
    return {"target": ("ldm.data.open_images.OpenImageDataset",), "params": params | recipe}


# The shape of an original file, see `ldm.compat.table.apply`.
# fmt: off
RATE, R = "training.params.optimisation.params.", "recipe.params."
U, A = "model.params.unet.params.", "model.params.autoencoder.params."
OWN, UNUSED = Left("this code has its own, see configs/train/defaults.yaml"), Left("without effect here")
TABLE = flat({
    "model": {"target": (ORIGINAL,), "base_learning_rate": RATE + "learning_rate", "params": {
        "linear_start": "model.params.schedule.params.start", "linear_end": "model.params.schedule.params.end",
        "timesteps": "model.params.schedule.params.T", "scale_factor": "model.params.scale_factor",
        "parameterization": "model.params.prediction", "ckpt_path": "pretrained_model",
        "image_size": lambda latent, theirs: {"model.params.image_size": latent * 2 ** (len(theirs[LEVELS]) - 1)},
        "u_cond_percent": "training.params.uncond_probability", "conditioning_key": ("crossattn",),
        "use_ema": lambda on, _: {"ema": 0.9999 if on else None}, "num_timesteps_cond": (1, None),
        "beta_schedule": ("linear",), "loss_type": ("l2",), "scale_by_std": (False,),
        **each("first_stage_key cond_stage_key monitor log_every_t clip_denoised", OWN),
        "channels": UNUSED, "cond_stage_trainable": Left("all of the conditioner except CLIP is trained"),
        "scheduler_config": {"target": ("ldm.lr_scheduler.LambdaLinearScheduler",), "params": {
            "warm_up_steps": lambda cycles, _: {RATE + "warmup_steps": cycles[0]}, **each("f_max f_min", ([1.0],)),
            **each("f_start cycle_lengths verbosity_interval", Left("one linear rise from 0, then constant"))}},
        "unet_config": {"target": ("ldm.modules.diffusionmodules.openaimodel.UNetModel",), "params": {
            **each("in_channels out_channels model_channels num_res_blocks channel_mult num_heads dropout "
                   "num_head_channels transformer_depth num_classes use_scale_shift_norm resblock_updown "
                   "use_checkpoint", U + "{}"), "context_dim": context_dim,
            "attention_resolutions": lambda value, _: {U + "attention_resolutions": sorted(value)}, "dims": (2,),
            **each("use_spatial_transformer conv_resample", (True,)), "add_conv_in_front_of_unet": (False,),
            **each("image_size legacy use_fp16 use_new_attention_order", UNUSED)}},
        "first_stage_config": {"target": ("ldm.models.autoencoder.AutoencoderKL",), "params": {
            "embed_dim": A + "embed_dim", "ckpt_path": (None,), "ddconfig": {
                **each("ch ch_mult num_res_blocks z_channels", A + "{}"), **each("in_channels out_ch", (3,)),
                "double_z": (True,), "attn_resolutions": ([],), "dropout": (0.0,), "resolution": UNUSED},
            **each("lossconfig.* monitor image_key", Left("the autoencoder is not trained"))}},
        "cond_stage_config": {"target": (*BASES,), "params": {
            "version": ("openai/clip-vit-large-patch14",), "max_length": (77,), "device": OWN}}}},
    "data": {"target": ("main.DataModuleFromConfig",), "params": {
        "batch_size": batch, "num_workers": "data.params.num_workers",
        "train": dataset("train", image_size=R + "size", arbitrary_mask_percent=R + "arbitrary_mask_percent"),
        "validation": dataset("validation", **each("image_size arbitrary_mask_percent", Left("as in training"))),
        **each("test.* predict.*", Left("training has no test or predict stage")),
        **each("wrap use_worker_init_fn shuffle_test_loader shuffle_val_dataloader", OWN)}},
    "lightning": {**each("callbacks.* modelcheckpoint.* logger.* strategy.* find_unused_parameters", OWN), "trainer": {
        **each("gpus devices", lambda value, _: {"trainer.devices": devices(value)}),
        **each("num_nodes max_steps gradient_clip_val", "trainer.{}"),
        **each("accelerator strategy benchmark logger profiler num_sanity_val_steps limit_val_batches "
               "val_check_interval check_val_every_n_epoch log_every_n_steps", OWN),
        "precision": lambda bits, _: {"trainer.precision": PRECISION[str(bits)]},
        "accumulate_grad_batches": Left("in batch_size"), "max_epochs": Left("set trainer.max_steps instead")}},
})
DEFAULTS = flat({  # of the original's code, where our configs have others
    "model": {"params": {
        "linear_start": 1e-4, "linear_end": 2e-2, "scale_factor": 1.0, "use_ema": True, "u_cond_percent": 0.0,
        "scheduler_config": {"params": {"warm_up_steps": [0]}}, "unet_config": {"params": {"channel_mult": [1, 2, 4, 8],
            "num_heads": -1, "use_spatial_transformer": False, "use_checkpoint": False}}}},
    "lightning": {"trainer": {"precision": 32, "gradient_clip_val": None}},
})
# fmt: on


def wrote(node: dict) -> bool:
    return isinstance(model := node.get("model"), dict) and model.get("target") == ORIGINAL


def translate(node: dict, file: str) -> tuple[str, Flat, dict[str, str]]:
    """Translate a config, see `ldm.compat.translate`."""
    given = flat(node)
    theirs = {CONDITIONER: None} | DEFAULTS | given  # the conditioner first: other keys depend on it
    devices_first = dict(sorted(theirs.items(), key=lambda item: item[0].startswith("data.")))
    values, left = apply(TABLE, devices_first, file)
    if "data.target" in given and "data.params.validation.target" not in given:
        values["data.params.validation"] = None
    base = BASES[theirs[CONDITIONER] or ""]
    if base not in TRAINED:
        idle = [key for key in values if not key.startswith("model.")]
        left |= dict.fromkeys(idle, f"configs/{base} is not for training")
        values = {key: value for key, value in values.items() if key not in idle}
    return base, values, left
