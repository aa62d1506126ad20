"""Numbers that the reports show beside ours, copied from the sources given in the comments."""

from ldm.utils.holes import PAPER

# Paint by Example (2211.13227), table 1, on COCOEE. `fid_clip` is what its code calls FID, on CLIP features.
COCOEE = {
    "Blended Diffusion (text)": {"fid_clip": 7.52, "qs": 55.89, "clip": 72.62},
    "Blended Diffusion (image)": {"fid_clip": 4.60, "qs": 67.14, "clip": 80.65},
    "DCCF": {"fid_clip": 3.78, "qs": 71.49, "clip": 82.18},
    "Stable Diffusion inpainting (text)": {"fid_clip": 3.66, "qs": 73.20, "clip": 75.33},
    "Paint by Example": {"fid_clip": 3.18, "qs": 77.80, "clip": 84.97},
}

# The leaderboard of bcmi's Awesome-Generative-Image-Composition (2024 to 2026, since taken down), on COCOEE. Its
# foreground scores use objects segmented by SAM, unlike ours, and are left out.
COCOEE_LEADERBOARD = {
    "ObjectStitch (leaderboard)": {"fid_clip": 3.35, "qs": 76.86, "lpips_bg": 0.116, "ssim_bg": 0.825},
    "AnyDoor (leaderboard)": {"fid_clip": 3.60, "qs": 76.18, "lpips_bg": 0.109, "ssim_bg": 0.870},
    "ControlCom (leaderboard)": {"fid_clip": 3.19, "qs": 77.84, "lpips_bg": 0.114, "ssim_bg": 0.826},
    "Paint by Example (leaderboard)": {"fid_clip": 3.18, "qs": 77.80, "lpips_bg": 0.116, "ssim_bg": 0.823},
}


def _masks(*lpips: float) -> dict[str, float]:
    return dict(zip(PAPER, lpips, strict=True))


# RePaint (2201.09865), tables 1 and 2 and the supplement: LPIPS over 100 pictures for each mask.
REPAINT = {
    "CelebA-HQ": {
        "AOT": _masks(0.104, 0.047, 0.714, 0.667, 0.287, 0.604),
        "DSI": _masks(0.067, 0.038, 0.128, 0.049, 0.211, 0.487),
        "ICT": _masks(0.063, 0.036, 0.483, 0.353, 0.166, 0.432),
        "DeepFillv2": _masks(0.066, 0.049, 0.119, 0.049, 0.209, 0.467),
        "LaMa": _masks(0.045, 0.028, 0.177, 0.083, 0.138, 0.342),
        "RePaint": _masks(0.059, 0.028, 0.029, 0.009, 0.165, 0.435),
    },
    "ImageNet": {
        "DSI": _masks(0.117, 0.072, 0.153, 0.069, 0.283, 0.583),
        "ICT": _masks(0.107, 0.073, 0.708, 0.620, 0.255, 0.544),
        "LaMa": _masks(0.105, 0.061, 0.272, 0.121, 0.254, 0.534),
        "RePaint": _masks(0.134, 0.064, 0.183, 0.089, 0.304, 0.629),
    },
    "Places2": {
        "LaMa": _masks(0.078, 0.039, 0.369, 0.138, 0.233, 0.512),
        "RePaint": _masks(0.105, 0.044, 0.099, 0.051, 0.286, 0.615),
    },
}

# DiffEdit (2210.11427), section 4.2, ImageNet, at an encode ratio of 0.8: the only points stated in numbers.
DIFFEDIT = {
    "DiffEdit": {"lpips": 30.5, "csfid": 23.6},
    "masked, no inversion": {"lpips": 30.5, "csfid": 26.4},
}
