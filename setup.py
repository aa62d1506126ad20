"""What `ldm` is and needs. Install from a clone: `pip install -e .` (`-e .[dev]` to run the tests)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [
    "einops>=0.8",
    "matplotlib>=3.9",
    "numpy>=1.26",
    "omegaconf>=2.3",
    "open-clip-torch>=2.30",
    "pillow>=11.3",
    "pyarrow>=16",
    "pytorch-lightning>=2.6",
    "safetensors>=0.5",
    "scikit-learn>=1.5",
    "tensorboard>=2.21",
    "timm>=1.0.21",
    "torch-fidelity>=0.3",
    "torch>=2.6",
    "torchmetrics>=1.4",
    "torchvision>=0.21",
    "tqdm>=4.66",
    "wandb>=0.26.1",
]
MEASURE = ["opencv-python-headless>=4.10"]  # methods to compare with; what measures does without them
DEV = [
    *MEASURE,
    "diffusers>=0.36",
    "import-linter>=2.5",
    "pytest>=8",
    "ruff>=0.12",
    "transformers>=5.6",
]

setup(
    name="ldm",
    version=re.search(r'^__version__ = "(.+)"$', Path("ldm/__init__.py").read_text(encoding="utf-8"), re.M)[1],
    description="Image editing by latent diffusion: an image, a mask and an exemplar in, the edited image out",
    license="Apache-2.0",
    packages=find_packages(include=["ldm", "ldm.*"]),
    python_requires=">=3.11",
    install_requires=REQUIRES,
    extras_require={"dev": DEV, "measure": MEASURE},
)
