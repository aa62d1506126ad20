import pytest
import torch
from safetensors.torch import save_file

from ldm.checkpoints.keymaps import VISUAL
from ldm.checkpoints.load import build_empty
from ldm.checkpoints.open import load
from ldm.checkpoints.warm_start import warm_start
from ldm.config import build
from tests.checkpoints import official
from tests.checkpoints.test_load import check_exemplar, check_networks
from tests.refusals import assert_mentions, refusal_of, refused

TRAINED = ("conditioner.mapper.", "conditioner.final_ln.", "conditioner.proj_out.", "conditioner.learnable_vector")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Stable Diffusion, which holds no vision tower; Paint by Example; and vision towers in every naming."""
    folder = tmp_path_factory.mktemp("files")
    official.write(folder / "sd.ckpt", official.stable_diffusion())
    official.write(folder / "pbe.ckpt", official.paint_by_example())
    tower = {name: official.make("tower." + name, shape) for name, shape in official.vision_shapes().items()}
    other = {"logit_scale": torch.tensor(1.0), "text_model.final_layer_norm.weight": torch.ones(3)}
    ids = {"vision_model.embeddings.position_ids": torch.arange(5)[None], "visual_projection.weight": torch.ones(3, 32)}
    save_file({"vision_model." + name: t for name, t in tower.items()} | other | ids, folder / "hf.safetensors")
    save_file(tower, folder / "hf_flat.safetensors")

    qkv = ("q", "k", "v")
    named = {name: tensor for name, tensor in tower.items() if not name.startswith("encoder.")}
    open_clip = {
        "class_embedding": named["embeddings.class_embedding"],
        "positional_embedding": named["embeddings.position_embedding.weight"],
        "conv1.weight": named["embeddings.patch_embedding.weight"],
        "proj": torch.ones(32, 3),
    }
    for kind in ("weight", "bias"):
        open_clip |= {
            f"ln_pre.{kind}": named[f"pre_layrnorm.{kind}"],
            f"ln_post.{kind}": named[f"post_layernorm.{kind}"],
        }
        for i in range(official.LAYERS):
            ours, theirs = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
            parts = [tower[f"{theirs}self_attn.{part}_proj.{kind}"] for part in qkv]
            open_clip[f"{ours}attn.in_proj_{kind}"] = torch.cat(parts)
            open_clip[f"{ours}attn.out_proj.{kind}"] = tower[f"{theirs}self_attn.out_proj.{kind}"]
            for a, b in (
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                open_clip[f"{ours}{a}.{kind}"] = tower[f"{theirs}{b}.{kind}"]
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(3), "positional_embedding": torch.ones(7, 3)}
    full = {"visual." + name: tensor for name, tensor in open_clip.items()} | text
    torch.save({name: tensor.clone() for name, tensor in full.items()}, folder / "open_clip.pt")
    save_file(open_clip, folder / "open_clip_flat.safetensors")
    own = {"image_encoder.visual." + name: tensor for name, tensor in open_clip.items() if name != "proj"}
    save_file(own | {"text_encoder.text.ln_final.weight": torch.ones(3)}, folder / "own.safetensors")
    expected = {VISUAL + name: tensor for name, tensor in open_clip.items() if name != "proj"}
    return folder, expected


def started(*arguments, **options):
    file, *others = arguments
    return warm_start(build_empty(official.model_config().model), [file], *others, **options)


def refusal(*arguments, **options):
    return refusal_of(started, *arguments, **options)


TOWERS = ["hf.safetensors", "hf_flat.safetensors", "open_clip.pt", "open_clip_flat.safetensors", "own.safetensors"]


@pytest.mark.parametrize("tower", TOWERS)
def test_from_stable_diffusion_and_clip(files, tower, caplog):
    caplog.set_level("INFO", logger="ldm")
    folder, expected = files
    model = started(folder / "sd.ckpt", folder / tower)
    state = model.state_dict()
    first = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.equal(state["unet.input_blocks.0.0.weight"][:, :4], official.make(first, (32, 4, 3, 3)))
    assert not state["unet.input_blocks.0.0.weight"][:, 4:].any()
    conv = official.make("first_stage_model.quant_conv.weight", (8, 8, 1, 1))
    assert torch.equal(state["autoencoder.quant_conv.weight"], conv)
    encoder = {name: tensor for name, tensor in state.items() if name.startswith("conditioner.encoder.")}
    assert encoder.keys() == expected.keys()
    assert all(torch.equal(encoder[name], expected[name]) for name in expected)
    assert_mentions(" ".join(caplog.messages), 4, 9, folder / tower, *(part.rstrip(".") for part in TRAINED))


def test_only_what_is_trained_is_initialised_and_nothing_keeps_what_it_had(files):
    """Two networks that were built with different random weights become the same one."""
    folder, _ = files
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = build(official.model_config().model)
        frozen = (model.autoencoder, model.conditioner.encoder)
        for module in frozen:
            module.requires_grad_(False)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        after = warm_start(model, [folder / "sd.ckpt"], folder / "hf.safetensors").state_dict()
        assert not any(parameter.requires_grad for module in frozen for parameter in module.parameters())
        assert all(parameter.requires_grad for parameter in model.conditioner.mapper.parameters())
        matrices = [name for name in before if before[name].ndim > 1]
        assert len(matrices) > 50 and not any(torch.equal(before[name], after[name]) for name in matrices)
        states.append(after)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = started(folder / "sd.ckpt", folder / "hf.safetensors", seed=1).state_dict()
    differ = {name for name in other if not torch.equal(other[name], states[0][name])}
    assert differ and all(name.startswith(TRAINED) for name in differ)


def test_the_initial_values(files):
    folder, _ = files
    conditioner = started(folder / "sd.ckpt", folder / "hf.safetensors").conditioner
    assert conditioner.learnable_vector.std().item() == pytest.approx(1, rel=0.4)
    weight = conditioner.mapper.resblocks[0].mlp.c_fc.weight
    assert weight.std().item() == pytest.approx(torch.nn.Linear(32, 128).weight.std().item(), rel=0.1)
    assert conditioner.final_ln.weight.eq(1).all() and conditioner.final_ln.bias.eq(0).all()
    assert not conditioner.proj_out.bias.any() and conditioner.proj_out.weight.any()


def test_from_paint_by_example_itself(files, caplog):
    caplog.set_level("INFO", logger="ldm")
    model = started(files[0] / "pbe.ckpt")
    check_networks(model)
    check_exemplar(model.conditioner)
    assert caplog.messages == []
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_a_text_model_takes_its_text_tower_from_stable_diffusion(files):
    folder, _ = files
    model = warm_start(build_empty(official.text_config().model), [folder / "sd.ckpt"])
    expected = load(official.text_config(), folder / "sd.ckpt").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    with refused("CLIP"):
        warm_start(build_empty(official.text_config().model), [folder / "sd.ckpt"], folder / "hf.safetensors")


def test_without_a_vision_tower_it_is_said_where_to_get_one(files):
    message = refusal(files[0] / "sd.ckpt")
    assert_mentions(message, "--clip", "openai/clip-vit-large-patch14", "ViT-L-14")


def test_flat_text_keys_are_not_taken_for_a_vision_tower(files, tmp_path):
    official.write(tmp_path / "flat.ckpt", official.stable_diffusion(level=False))
    assert "--clip" in refusal(tmp_path / "flat.ckpt")
    started(tmp_path / "flat.ckpt", files[0] / "hf.safetensors")


@pytest.mark.parametrize("root", ["model.diffusion_model.", "first_stage_model."])
@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_networks_are_strict(files, tmp_path, root, change):
    tensors = official.stable_diffusion()
    name = root + ("out.2.bias" if "diffusion" in root else "quant_conv.bias")
    if change == "missing":
        del tensors[name]
    elif change == "surplus":
        name = root + "extra"
        tensors[name] = torch.ones(1)
    else:
        tensors[name] = torch.ones(1)
    path = official.write(tmp_path / "sd.ckpt", tensors)
    assert name in refusal(path, files[0] / "hf.safetensors")


def test_the_vision_tower_is_strict(files, tmp_path):
    folder, _ = files
    tensors = {"vision_model." + name: torch.ones(shape) for name, shape in official.vision_shapes().items()}
    layer = "vision_model.encoder.layers."
    for change, name in (
        ({layer + "1.mlp.fc1.bias": None}, layer + "1.mlp.fc1.bias"),
        ({layer + "2.mlp.fc1.bias": torch.ones(3)}, layer + "2.mlp.fc1.bias"),
        ({"vision_model.embeddings.class_embedding": torch.ones(3)}, ("class_embedding", "(3,)")),
    ):
        path = tmp_path / "clip.safetensors"
        save_file({name: tensor for name, tensor in (tensors | change).items() if tensor is not None}, path)
        message = refusal(folder / "sd.ckpt", path)
        assert_mentions(message, name, path)


def test_half_a_bottleneck_is_refused(tmp_path):
    tensors = official.paint_by_example()
    del tensors["proj_out.bias"]
    assert "proj_out.bias" in refusal(official.write(tmp_path / "pbe.ckpt", tensors))
