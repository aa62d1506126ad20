"""What `ldm` is and needs. The versions that it is tested with stand in requirements.lock; these are the bounds."""

import re
from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [  # for editing and training
    "einops>=0.8",
    "matplotlib>=3.9",
    "numpy>=2.0",
    "omegaconf>=2.3",
    "open-clip-torch>=2.30",
    "pillow>=11.3",
    "pyarrow>=16",
    "pydantic>=2.10",
    "pytorch-lightning>=2.6",
    "safetensors>=0.5",
    "tensorboard>=2.21",
    "timm>=1.0.21",
    "scipy>=1.13",
    "torch>=2.6",
    "torchmetrics>=1.4",
    "torchvision>=0.21",
    "tqdm>=4.66",
    "wandb>=0.26.1",
]
BENCHMARK = [  # FID by Inception, the Quality Score, and methods to compare with
    "opencv-python-headless>=4.10.0.84",
    "scikit-learn>=1.5",
    "torch-fidelity>=0.3",
]
DOCS = [  # the site, `make docs`
    "mkdocs-material>=9.6",
    "mkdocstrings[python]>=0.30",
]
DEV = [
    *BENCHMARK,
    *DOCS,
    "diffusers>=0.36",
    "import-linter>=2.5",
    "mypy>=1.15",
    "packaging>=24",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.15",
    "transformers>=5.6",
    "uv>=0.9",
]
# What is used without being code lies at the top of a clone, and in a wheel under `ldm.shipped`.
SHIPPED = {
    "configs": "**/*.yaml",
    "pretrained_models/toyworld": "*.safetensors",
    "dataset/toyworld_examples": "*.png",
}
SHIPPED_PACKAGES = {f"ldm.shipped.{folder.replace('/', '.')}": folder for folder in SHIPPED}

setup(
    name="ldm-edit",  # `ldm` on PyPI is another project; `import ldm` is this one
    version=re.search(r'^__version__ = "(.+)"$', Path("ldm/__init__.py").read_text(encoding="utf-8"), re.M)[1],
    description="Image editing by latent diffusion: by example, by prompt, or by filling holes",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["ldm", "ldm.*"]), *SHIPPED_PACKAGES],
    package_dir=SHIPPED_PACKAGES,
    package_data={
        "ldm": ["py.typed"],
        "ldm.checkpoints": ["manifests/*.json.gz"],
        **{package: [SHIPPED[folder]] for package, folder in SHIPPED_PACKAGES.items()},
    },
    python_requires=">=3.11",
    install_requires=REQUIRES,
    extras_require={"benchmark": BENCHMARK, "docs": DOCS, "dev": DEV, "all": DEV},
    entry_points={"console_scripts": ["ldm = ldm.__main__:main"]},
)
