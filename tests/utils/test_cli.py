from ldm.utils.cli import sort_overrides


def test_overrides_may_stand_behind_the_config_files():
    assert sort_overrides(["a.yaml", "b.yaml", "x.y=1"], ["z=2"]) == (["a.yaml", "b.yaml"], ["x.y=1", "z=2"])
