import pytest

from ldm.config import build, find_config, load_config, locate
from ldm.toyworld.judge import Judge
from tests.golden_weights import GOLDEN
from tests.refusals import assert_line, refused


@pytest.fixture
def file(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_keys_beside_an_include_are_merged_over_it(file, tmp_path):
    part = file("part.yaml", "a: 1\nb: 2\n")
    config = load_config(file("whole.yaml", f"x: {{include: {part}, b: 3}}\ny: {{include: {part}}}\n"))
    assert config == {"x": {"a": 1, "b": 3}, "y": {"a": 1, "b": 2}}


def test_a_node_of_another_target_replaces_the_one_below(file):
    below = file("a.yaml", "data: {target: a.B, params: {root: x, size: 3}}\nsize: 3\n")
    same = file("b.yaml", "data: {target: a.B, params: {root: y}}")
    other = file("c.yaml", "data: {target: a.C, params: {file: z, size: '${size}'}}")
    assert load_config(below, same).data == {"target": "a.B", "params": {"root": "y", "size": 3}}
    assert load_config(below, same, other).data == {"target": "a.C", "params": {"file": "z", "size": 3}}
    override = "data={target: a.C, params: {file: z, size: '${size}'}}"
    assert load_config(below, overrides=[override, "size=4"]).data.params == {"file": "z", "size": 4}
    assert load_config(file("d.yaml", f"include: {below}\ndata: {{target: a.D}}")).data == {"target": "a.D"}


def test_a_config_that_includes_itself_is_named(file, tmp_path):
    file("b.yaml", f"deep: {{include: {tmp_path / 'a.yaml'}}}")
    with refused(tmp_path / "a.yaml"):
        load_config(file("a.yaml", f"x: {{include: {tmp_path / 'b.yaml'}}}"))


def test_a_name_too_long_for_a_file_is_no_config():
    with refused("x" * 300):
        find_config("x" * 300)


@pytest.mark.parametrize("value", ["[", "{a: ]", "${", '"'])
def test_an_override_that_is_no_yaml_is_named_in_one_line(file, value):
    with refused(f"trainer.max_steps={value}"):
        load_config(file("a.yaml", "trainer: {max_steps: 3}"), overrides=[f"trainer.max_steps={value}"])


CONFIG = """
seed: 0
model: {target: ldm.models.clip_image.Mapper, params: {width: 8}}
training: {target: ldm.training.judge.JudgeTraining, params: {judge: "${model}"}}
schedule: {target: ldm.diffusion.schedule.Schedule.linear}
data: {params: {batch_size: 2}}
trainer: {max_steps: 3}
"""


@pytest.mark.parametrize(
    "key, wanted",
    [
        ("data.params.batchsize", "data.params.batch_size"),
        ("max_step", "trainer.max_steps"),
        ("sed", "seed"),
        ("model.params.layrs", "model.params.layers"),
        ("schedule.params.stat", "schedule.params.start"),
        ("training.params.judge.params.width", ("training.params.judge", "${model}", "model.params.width")),
    ],
)
def test_an_unknown_key_and_the_nearest_one_are_named(file, key, wanted):
    with refused(f"{key}=4", wanted):
        load_config(file("a.yaml", CONFIG), overrides=[f"{key}=4"])


def test_parameters_that_no_file_lists_may_be_given(file):
    overrides = [
        "schedule.params.T=7",
        "model.params.layers=2",
        "trainer.fast_dev_run=true",
        "data.params.batch_size=4",
    ]
    config = load_config(file("a.yaml", CONFIG), overrides=overrides)
    assert build(config.schedule).num_timesteps == 7
    assert len(build(config.model).resblocks) == 2
    assert (config.trainer.fast_dev_run, config.data.params.batch_size) == (True, 4)


def test_params_may_be_left_out_of_a_key(file):
    text = CONFIG + "deep: {target: ldm.models.clip_image.Mapper, params: {width: {target: a.B, params: {target: 1}}}}"
    overrides = {
        "schedule.T=7": "schedule.params.T",
        "model.layers=2": "model.params.layers",
        "deep.layers=5": "deep.params.layers",
        "deep.width.params.target=3": "deep.params.width.params.target",  # a parameter of that name
        "deep.width.target=a.C": "deep.params.width.target",
        "data.params.batch_size=4": "data.params.batch_size",
    }
    config = load_config(file("a.yaml", text), overrides=overrides)
    assert config == load_config(
        file("a.yaml", text), overrides=[f"{key}={o.partition('=')[2]}" for o, key in overrides.items()]
    )
    assert (config.schedule.params, config.deep.params.layers, config.model.params.layers) == ({"T": 7}, 5, 2)
    assert config.deep.params.width == {"target": "a.C"}
    assert load_config("train/toyworld_judge", overrides=["training.optimisation.learning_rate=1"]) == load_config(
        "train/toyworld_judge", overrides=["training.params.optimisation.params.learning_rate=1"]
    )


@pytest.mark.parametrize(
    "key, hint",
    [
        ("model.layrs", "model.layers"),
        ("schedule.tagret", "schedule.target"),
        ("training.judge.width", ("training.params.judge", "${model}", "model.width")),
        ("data.batch_size", "data.params.batch_size"),  # nothing is built of that node
    ],
)
def test_an_unknown_short_key_and_the_nearest_one_are_named(file, key, hint):
    test_an_unknown_key_and_the_nearest_one_are_named(file, key, hint)


@pytest.mark.parametrize(
    "params, wanted",
    [
        ({"witdh": 8, "layers": 1}, ("witdh", "width")),
        ({"width": 8, "layers": 1, "zzz": 1}, ("zzz", "width", "layers")),
        ({"width": {"target": "nothing.that.exists"}}, "layers"),  # before it is built
    ],
)
def test_a_wrong_parameter_is_named(params, wanted):
    with refused("ldm.models.clip_image.Mapper", wanted):
        build({"target": "ldm.models.clip_image.Mapper", "params": params})


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("ldm.diffusion.schedule.Schedul.linear", ("ldm.diffusion.schedule", "Schedule")),
        ("ldm.diffusion.schedule.Schedule.linar", ("ldm.diffusion.schedule.Schedule", "linear")),
        ("ldm.difusion.schedule.Schedule", ("ldm", "diffusion")),
        ("no_such_package.Thing", ()),
        ("", ()),
    ],
)
def test_an_unknown_target_and_the_nearest_one_are_named(name, wanted):
    with refused(name, wanted):
        locate(name)


def test_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = [load_config(name) for name in ("toyworld", "toyworld.yaml", "configs/toyworld.yaml")]
    assert by_name[0] == by_name[1] == by_name[2] and "model" in by_name[0]


def test_a_target_is_a_class_or_a_function():
    with refused("ldm.config.CONFIGS"):
        locate("ldm.config.CONFIGS")


def test_a_target_whose_module_lacks_a_package_is_no_misspelling(file, tmp_path, monkeypatch):
    file("needs_another.py", "import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        locate("needs_another.Thing")


OLD_TARGETS = (GOLDEN / "config_targets.txt").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("target", OLD_TARGETS)
def test_every_target_that_a_config_ever_named_is_still_found(target):
    """They stand in the run folders of users."""
    assert callable(locate(target))


def test_a_target_that_has_moved_is_said(caplog):
    assert locate("ldm.evaluation.judge.Judge") is Judge
    (record,) = caplog.records
    assert_line(record.getMessage(), "ldm.evaluation.judge.Judge", "ldm.toyworld.judge.Judge")
