"""Names of our models' tensors in official files.

Inside a network our parameter names are the official checkpoints' own, so a map only renames roots. CLIP is the
exception: it has open_clip's names here and Hugging Face's in the official files, which also keep q, k and v apart. A
dialect maps one of our names to the names whose tensors, concatenated along the first axis, are its value.
"""

import re
from collections.abc import Callable, Collection, Mapping
from itertools import islice

Dialect = Callable[[str], tuple[str, ...]]

OFFICIAL_ROOTS = {
    "unet.": "model.diffusion_model.",
    "autoencoder.": "first_stage_model.",
    "conditioner.mapper.": "cond_stage_model.mapper.",
    "conditioner.final_ln.": "cond_stage_model.final_ln.",
    "conditioner.proj_out.": "proj_out.",
    "conditioner.learnable_vector": "learnable_vector",
}

# open_clip's name -> Hugging Face's
VISION_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.": "embeddings.patch_embedding.",
    "ln_pre.": "pre_layrnorm.",
    "ln_post.": "post_layernorm.",
}
TEXT_NAMES = {
    "token_embedding.": "embeddings.token_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.": "final_layer_norm.",
}
BLOCK_NAMES = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}

VISUAL, TEXT = "conditioner.encoder.visual.", "conditioner.encoder.text."

# In official files, but not weights: skipped by name
SCHEDULE_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
EMA_COUNTERS = ("model_ema.decay", "model_ema.num_updates")
# The parts of our contrastively trained CLIP; a diffusion model uses one tower
CLIP_TOWERS = ("image_encoder.", "text_encoder.")
CLIP_EXTRAS = (*CLIP_TOWERS, "image_projection.", "text_projection.", "logit_scale")


def is_skipped(name: str) -> bool:
    """Return whether a name is not a weight in use: a buffer, a counter, a training loss, the rest of CLIP."""
    return (
        name in SCHEDULE_BUFFERS
        or name in EMA_COUNTERS
        or name.endswith("embeddings.position_ids")
        or name.startswith(("first_stage_model.loss.", "loss."))
        or name.startswith(CLIP_EXTRAS)
    )


def own(name: str) -> tuple[str, ...]:
    """Return the names in files of this package."""
    return (name,)


def official(name: str) -> tuple[str, ...]:
    """Return the names in Paint by Example's `model.ckpt` and Stable Diffusion 1.x, in their LDM format."""
    for ours, theirs in (VISUAL, "vision_model."), (TEXT, "text_model."):
        if name.startswith(ours):
            return _hugging_face(name, ours, "cond_stage_model.transformer." + theirs)
    return (_rename(name, OFFICIAL_ROOTS),)


def official_flat(name: str) -> tuple[str, ...]:
    """Return the official names as newer transformers save them, without `vision_model.` or `text_model.`."""
    return tuple(re.sub(r"(?<=\.transformer\.)(vision|text)_model\.", "", source) for source in official(name))


def beside_clip(name: str) -> tuple[str, ...]:
    """Return the names where CLIP's towers come from a file of their own, as contrastive training writes it."""
    return (_rename(name, {VISUAL: "image_encoder.visual.", TEXT: "text_encoder.text."}),)


def autoencoder_alone(name: str) -> tuple[str, ...]:
    """Return the names in LDM's autoencoder checkpoints, which have no root (and `loss.*`, skipped)."""
    return (name.removeprefix("autoencoder."),)


def guided(name: str) -> tuple[str, ...]:
    """Return the names in guided-diffusion's files: the U-Net's state dict, without a root."""
    return (name.removeprefix("unet."),)


OFFICIAL: tuple[Dialect, ...] = (own, official, official_flat, beside_clip, autoencoder_alone, guided)


def clip_vision(prefix: str, hugging_face: bool) -> Dialect:
    """Return the dialect of a CLIP file whose vision tower is under `prefix`; it maps our names under VISUAL.

    Args:
        prefix: "" for a file of nothing but the tower.
        hugging_face: the names are Hugging Face's, not open_clip's.
    """
    if hugging_face:
        return lambda name: _hugging_face(name, VISUAL, prefix)
    return lambda name: (prefix + name.removeprefix(VISUAL),)


CLIP_VISION_FILES: tuple[tuple[str, bool], ...] = (  # prefix of the tower, whether the names are Hugging Face's
    ("visual.", False),  # open_clip and OpenAI
    ("vision_model.", True),
    ("image_encoder.visual.", False),  # our own contrastive training
    (VISUAL, False),
    ("cond_stage_model.transformer.vision_model.", True),  # Paint by Example
    ("", False),
    ("", True),
)


def ema_name(name: str) -> str:
    """Return the name of the moving average of an official parameter `model.*`: the rest, without dots."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def tally(problems: Mapping[str, Collection[str]]) -> str:
    """Return counts and the first three names, or "": `3 missing: a, b, c; 5 unexpected: d, e, f, ...`."""
    return "; ".join(
        f"{len(names)} {problem}: {', '.join(islice(names, 3))}{', ...' if len(names) > 3 else ''}"
        for problem, names in problems.items()
        if names
    )


def _hugging_face(name: str, ours: str, theirs: str) -> tuple[str, ...]:
    rest = name.removeprefix(ours)
    if block := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", rest):
        index, rest = block.groups()
        theirs += f"encoder.layers.{index}."
        if fused := re.fullmatch(r"attn\.in_proj_(weight|bias)", rest):
            return tuple(f"{theirs}self_attn.{part}_proj.{fused[1]}" for part in "qkv")
        renamed = _rename(rest, BLOCK_NAMES)
    else:
        renamed = _rename(rest, VISION_NAMES if ours == VISUAL else TEXT_NAMES)
    return (theirs + renamed,)


def _rename(name: str, table: dict[str, str]) -> str:
    for ours, theirs in table.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
