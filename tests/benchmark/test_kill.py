"""A benchmark that is killed, for real, at two random moments ends as one that is not. See `tests.benchmark.trial`."""

from tests.benchmark.trial import trial


def test_a_killed_benchmark_ends_with_the_same_report(tmp_path):
    assert trial(tmp_path, count=24, reference=2, kinds=["lpips_vgg"], device="cpu", seed=3) == 2
