import pytest

from ldm.utils.errors import UserError
from ldm.utils.files import read_column


def test_a_column_of_a_table(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,val/psnr\n1,\n2,20.5\n3,\n4,21\n")
    assert read_column(file, "val/psnr") == [20.5, 21.0]
    with pytest.raises(UserError, match="metrics.csv: no column val/loss, or nothing in it"):
        read_column(file, "val/loss")
    with pytest.raises(UserError, match="other.csv: No such file"):
        read_column(tmp_path / "other.csv", "step")
