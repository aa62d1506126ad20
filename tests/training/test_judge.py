import torch
from safetensors.torch import load_file

from ldm.checkpoints.open import load
from ldm.config import load_config
from ldm.toyworld.datasets import ToyWorldJudged
from ldm.training.loop.fit import fit


def test_a_short_training_learns_colours_first_and_loads_as_the_judge(tmp_path):
    changes = {
        "trainer.max_steps": 40,
        "trainer.enable_progress_bar": "false",
        "training.params.optimisation.params.warmup_steps": 5,
        "model.params.size": 16,
        "data.params.train.params.length": 640,
        "data.params.validation": "null",
        "data.params.batch_size": 16,
        "data.params.num_workers": 0,
    }
    config = load_config("train/toyworld_judge", overrides=[f"{key}={value}" for key, value in changes.items()])
    weights = fit(config, tmp_path / "run")
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}

    judge = load(load_config("toyworld_judge", overrides=["model.params.size=16"]), weights, root="judge")
    fresh = ToyWorldJudged(100, augment=False, seed=9)
    things = torch.utils.data.default_collate([fresh[i] for i in range(100)])
    right = judge.correct(things["image"], things["box"], {head: things[head] for head in judge.heads})
    assert right["colour"].float().mean() > 0.4  # 1/8 by guessing
