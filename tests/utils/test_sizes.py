import pytest

from ldm.utils.sizes import size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2**20, "1.0 MB"), (7_549_000, "7.5 MB"),
        (2**30, "1.1 GB"), (16_060_000_000, "16.1 GB"), (2_500_000_000_000, "2,500.0 GB"),
    ],
)  # fmt: skip
def test_sizes_are_decimal(count, said):
    assert size(count) == said
