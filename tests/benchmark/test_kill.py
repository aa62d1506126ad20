"""A benchmark that is killed, for real, twice ends as one that is not. See `tests.benchmark.trial`."""

from tests.benchmark.trial import trial


def test_a_killed_benchmark_ends_with_the_same_report(tmp_path):
    trial(tmp_path, count=12, reference=2, kinds=["lpips_vgg"], device="cpu", seed=3)
