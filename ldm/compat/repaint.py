"""The table for RePaint's own `confs/*.yml`, flat lists of guided-diffusion's arguments.

The network becomes a `model`, the walk through time the settings `repaint` (see `ldm.presets.RePaintSettings`), and the
weights two paths, `checkpoint` and `classifier`. The pictures to fill are left out.
"""

import json
import math
import os
from collections.abc import Callable

from ldm.compat.table import Flat, Left, apply, each, flat

WALK = "schedule_jump_params"
WIDTHS = {512: [0.5, 1, 1, 2, 2, 4, 4], 256: [1, 1, 2, 2, 4, 4], 128: [1, 1, 2, 3, 4], 64: [1, 2, 3, 4]}  # by size
SCHEDULE = "model.params.schedule."


def base(theirs: Flat) -> str:
    if theirs["class_cond"]:
        return "imagenet256.yaml"
    return "places256.yaml" if "places" in os.path.basename(str(theirs.get("model_path"))) else "celeba256.yaml"


def numbers(text: str | int | float) -> list[int | float]:
    """Parse numbers separated by commas, such as 1,1,2 or 0.5,1."""
    try:
        found = [float(part) for part in str(text).split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < number < math.inf for number in found):
        raise ValueError("expected numbers separated by commas, such as 32,16,8")
    return [int(number) if number == int(number) else number for number in found]


def attention(sides: str | int, theirs: Flat) -> Flat:
    """Translate resolutions with attention, which are feature map sizes there and downsampling factors here."""
    size, found = theirs["image_size"], numbers(sides)
    factors = {size // 2**k: 2**k for k in range(size.bit_length()) if size % 2**k == 0}
    if not factors.keys() >= set(found):
        raise ValueError(f"expected sizes of feature maps, some of {', '.join(map(str, factors))}")
    return {U + "attention_resolutions": sorted(factors[side] for side in found)}


def widths(text: str, theirs: Flat) -> Flat:
    if not text and theirs["image_size"] not in WIDTHS:
        raise ValueError(f"expected numbers separated by commas: image_size {theirs['image_size']} has no default")
    return {U + "channel_mult": numbers(text) if text else WIDTHS[theirs["image_size"]]}


def heads(count: int, theirs: Flat) -> Flat | Left:
    if theirs.get("num_head_channels") != -1:
        return Left("num_head_channels determines it")
    return whole(U + "num_heads")(count, theirs)


def whole(key: str, *besides: int) -> Callable:
    """Return a rule for a count, or one of a few other numbers, that is kept as it is."""

    def rule(count: object, _: Flat) -> Flat:
        if not isinstance(count, int) or isinstance(count, bool) or (count < 1 and count not in besides):
            raise ValueError("expected a whole number, 1 or more")
        return {key: count}

    return rule


def switch(on: dict, off: dict) -> Callable:
    """Return a rule for a boolean that stands for one of two sets of values."""

    def rule(value: object, _: Flat) -> Flat:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return on if value else off

    return rule


def schedule(name: str, theirs: Flat) -> Flat:
    if name not in ("linear", "cosine"):
        raise ValueError('expected "linear" or "cosine"')
    T = theirs["diffusion_steps"]
    values = {SCHEDULE + "target": f"ldm.diffusion.schedule.Schedule.{name}"}
    if name == "linear" and T != 1000:  # ends at the same noise level as with 1000 steps
        values |= {SCHEDULE + "params.start": 1e-4 * 1000 / T, SCHEDULE + "params.end": 0.02 * 1000 / T}
    return values


def respacing(sections: str | int | None, theirs: Flat) -> Flat:
    steps = theirs[f"{WALK}.t_T"]
    if (str(sections) if sections else str(theirs["diffusion_steps"])) != str(steps):
        raise ValueError(f"expected {steps}, as many steps as {WALK}.t_T")
    return {}


def only(value: bool | int, why: str) -> Callable:
    def rule(given: object, _: Flat) -> Flat:
        if given != value:
            raise ValueError(f"expected {json.dumps(value)}: {why}")
        return {}

    return rule


def guided(theirs: Flat) -> bool:
    scale = theirs["classifier_scale"]
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise ValueError("expected a number")
    return bool(theirs.get("classifier_path")) and scale > 0


def of_classifier(rule: str | object) -> Callable:
    """Return a rule for a key that only matters with classifier guidance; `rule` translates it or is its only value."""

    def guided_rule(value: object, theirs: Flat) -> Flat | Left:
        if not guided(theirs):
            return Left("no classifier guidance, which needs a classifier_path and a classifier_scale above 0")
        if callable(rule):
            return rule(value)
        if value != rule:
            raise ValueError(f"expected {json.dumps(rule)}, as in configs/imagenet256_classifier.yaml")
        return {}

    return guided_rule


def path(key: str) -> Callable:
    def rule(file: object, _: Flat | None = None) -> Flat:
        if not isinstance(file, str) or not file:
            raise ValueError("expected the path of a file")
        return {key: os.path.abspath(file)}  # relative to the current folder there, to the project here

    return rule


# fmt: off
U = "model.params.unet.params."
UNUSED = Left("without effect here")
JOB = Left("ldm repaint has --image, --mask_path and --outdir; with --invert_mask white is known, as in theirs")
DATASET = each("mask_loader gt_path mask_path image_size class_cond deterministic random_crop random_flip return_dict "
               "drop_last batch_size return_dataloader offset max_len paths.srs paths.lrs paths.gts "
               "paths.gt_keep_masks", JOB)
TABLE = flat({
    # the network
    "model_path": path("checkpoint"), "image_size": whole("model.params.image_size"), "class_cond": (True, False),
    "num_channels": whole(U + "model_channels"), "num_res_blocks": whole(U + "num_res_blocks"),
    "channel_mult": widths, "attention_resolutions": attention, "dropout": U + "dropout",
    **{name: switch({U + name: True}, {U + name: False})
       for name in ("resblock_updown", "use_scale_shift_norm", "use_new_attention_order")},
    "num_head_channels": whole(U + "num_head_channels", -1), "num_heads": heads, "num_heads_upsample": (-1,),
    "learn_sigma": switch({U + "out_channels": 6, "model.params.variance": "learned_range"},
                          {U + "out_channels": 3, "model.params.variance": "fixed_large"}),
    "use_fp16": Left("see --precision"),
    **each("use_checkpoint use_kl rescale_learned_sigmas", Left("only used in training")),
    # the classifier
    "classifier_path": of_classifier(path("classifier")), "classifier_use_fp16": Left("see --precision"),
    "classifier_scale": of_classifier(lambda scale: {"repaint.classifier_scale": scale}),
    "classifier_width": of_classifier(128), "classifier_depth": of_classifier(2),
    "classifier_attention_resolutions": of_classifier("32,16,8"), "classifier_pool": of_classifier("attention"),
    **each("classifier_use_scale_shift_norm classifier_resblock_updown", of_classifier(True)),
    # diffusion
    "noise_schedule": schedule, "diffusion_steps": whole(SCHEDULE + "params.T"),
    "predict_xstart": only(False, "networks predict the noise here"),
    "rescale_timesteps": only(False, "networks get integer timesteps here"),
    "timestep_respacing": respacing, "clip_denoised": only(True, "predicted pictures are always clipped here"),
    "use_ddim": switch({"repaint.sampler": "ddim"}, {"repaint.sampler": "ddpm"}),
    # RePaint
    WALK: {**{name: whole(f"repaint.{name}") for name in ("n_sample", "jump_length", "jump_n_sample")},
           "t_T": whole("repaint.steps"), **each("jump2_length jump2_n_sample jump3_length jump3_n_sample "
                                                 "start_resampling", "repaint.{}")},
    "inpa_inj_sched_prev": only(True, "without it the known pixels are not used at all"),
    "inpa_inj_sched_prev_cumnoise": only(False, "known pixels get new noise in each step here"),
    "inpa_inj_time_shift": only(1, "a step up adds the noise of the step that it undoes"),
    # the job
    "cond_y": Left("see --class_id"), "device": Left("see --device"),
    **each("name num_samples n_jobs show_progress print_estimated_vars lr_kernel_n_std latex_name method_name", UNUSED),
})
DEFAULTS = flat({  # of keys that a file leaves out; other such keys stay as in our config
    WALK: dict.fromkeys(("t_T", "n_sample", "jump_length", "jump_n_sample")),
    "image_size": 256, "class_cond": False, "channel_mult": "", "classifier_scale": 0, "use_ddim": False,
    "diffusion_steps": 1000, "noise_schedule": "linear", "timestep_respacing": "", "inpa_inj_sched_prev": None,
})
# fmt: on


def wrote(node: dict) -> bool:
    return WALK in node


def translate(node: dict, file: str) -> tuple[str, Flat, dict[str, str]]:
    """Translate a config, see `ldm.compat.translate`."""
    try:
        sets = list(node["data"]["eval"])  # data sets have arbitrary names
    except (KeyError, TypeError):
        sets = ["NAME"]
    theirs, table = DEFAULTS | flat(node), TABLE | flat({"data": {"eval": dict.fromkeys(sets, DATASET)}})
    return base(theirs), *apply(table, theirs, file)
