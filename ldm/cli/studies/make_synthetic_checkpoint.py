"""Write a checkpoint of random weights in the official format.

Names, shapes and additional objects are as in the published file.

Latent diffusion models are written in the format of Stable Diffusion and Paint by Example, those of guided-diffusion
and its classifier as bare state dicts.
"""

from pathlib import Path

from ldm.utils.cli import Parser
from ldm.utils.errors import UserError


class TrainingObject:
    """A stand-in for the objects of a training framework that official files contain besides the weights."""

    def __init__(self):
        self.best_score = 0.5
        self.folder = Path("checkpoints")


def synthetic(name: str, shape: tuple[int, ...], seed: int):
    """Return a random tensor for an official name, scaled so that all outputs of the network stay finite."""
    import torch

    from ldm.checkpoints.keymaps import SCHEDULE_BUFFERS
    from ldm.utils.random import generator

    if name.endswith("position_ids"):
        return torch.arange(shape[-1])[None]
    if name in SCHEDULE_BUFFERS:
        return torch.zeros(shape)
    noise = torch.randn(shape, generator=generator(seed, "synthetic", name))
    if name.endswith("bias"):
        return noise.mul_(0.1)
    if name.endswith("weight") and len(shape) == 1:  # a norm's scale
        return noise.mul_(0.1).add_(1)
    if "embedding" in name and len(shape) < 3 or not name.endswith("weight"):
        return noise.mul_(0.05)
    return noise.div_(shape[1:].numel() ** 0.5)


def official_shapes(model) -> dict:
    """Return the name and shape of every tensor in the official file of a model."""
    import torch

    from ldm.checkpoints.keymaps import SCHEDULE_BUFFERS, guided, official

    if not is_latent(model):
        return {guided(ours)[0]: tensor.shape for ours, tensor in model.state_dict().items()}
    T = model.schedule.num_timesteps
    shapes = {name: torch.Size([T]) for name in SCHEDULE_BUFFERS}
    for ours, tensor in model.state_dict().items():
        names = official(ours)  # q, k and v are separate there
        for name in names:
            shapes[name] = (
                torch.Size([len(tensor) // len(names), *tensor.shape[1:]]) if len(names) > 1 else tensor.shape
            )
            if name.endswith("embeddings.position_embedding.weight"):
                shapes[name.replace("position_embedding.weight", "position_ids")] = torch.Size([1, len(tensor)])
    return shapes


def is_latent(model) -> bool:
    """Return whether a model is a latent diffusion model."""
    return hasattr(model, "autoencoder")


def main() -> None:
    parser = Parser(
        "Write a checkpoint of random weights in the official format, to test loading without the real file."
    )
    parser.add_argument("--config", default="v1", help="config of the model")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .ckpt, .pt or .safetensors")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    options = parser.parse_args()
    if options.out.suffix not in (".ckpt", ".pt", ".safetensors"):
        raise UserError(f"--out {options.out}: expected a name ending in .ckpt, .pt or .safetensors")

    import mmap

    import torch

    from ldm.checkpoints.io import save_tensors
    from ldm.checkpoints.load import build_empty
    from ldm.compat.configs import load_config
    from ldm.utils.files import replacing

    config = load_config(options.config)
    if "model" not in config:
        raise UserError(f"config {options.config}: has no `model`")
    model = build_empty(config.model)
    shapes = official_shapes(model)
    if options.out.suffix == ".safetensors":
        save_tensors(options.out, {name: synthetic(name, shape, options.seed) for name, shape in shapes.items()})
        return
    # The file is laid out first and then filled through a memory map, which needs memory for one tensor only.
    kinds = {name: torch.int64 if name.endswith("position_ids") else torch.float32 for name in shapes}
    empty = {name: torch.empty(shape, dtype=kinds[name]) for name, shape in shapes.items()}
    training = {"epoch": 0, "global_step": 0, "callbacks": {TrainingObject: TrainingObject()}}
    content = {**training, "state_dict": empty} if is_latent(model) else empty
    with replacing(options.out) as temporary:
        with torch.serialization.skip_data():
            torch.save(content, temporary)
        with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
            laid_out = torch.load(temporary, mmap=True, weights_only=False)  # written a moment ago
        for name, tensor in laid_out.get("state_dict", laid_out).items():
            tensor.copy_(synthetic(name, tensor.shape, options.seed))
    print(f"{options.out}: {len(shapes)} tensors, {sum(s.numel() for s in shapes.values()):,} numbers")
