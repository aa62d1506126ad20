import numpy as np
import pytest
from PIL import Image

from ldm.benchmark.layout import item_file, read_ids, read_test_bench, result_files
from tests.refusals import assert_line, refused
from tests.utils.pictures import mask

IDS = [460, 724, 139]


@pytest.fixture
def bench(tmp_path):
    for id in IDS:
        for kind in ("image", "mask", "exemplar"):
            file = item_file(tmp_path, kind, f"{id:012d}")
            file.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), "white" if kind == "mask" else "black").save(file)
    np.save(tmp_path / "id_list.npy", np.array(IDS))
    return tmp_path


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for id in IDS:
        Image.new("RGB", (8, 8)).save(folder / f"{id:012d}.png")
    return folder


def ids() -> list[str]:
    return [f"{id:012d}" for id in IDS]


def test_the_official_names(bench):
    items, wrong = read_test_bench(bench)
    assert [item.id for item in items] == ["000000000460", "000000000724", "000000000139"]
    assert items[0].image == bench / "GT_3500" / "000000000460_GT.png"
    assert items[0].mask == bench / "Mask_bbox_3500" / "000000000460_mask.png"
    assert items[0].exemplar == bench / "Ref_3500" / "000000000460_ref.png"
    assert [item.number for item in items] == [0, 1, 2] and wrong == []
    assert items[0].box == (0, 0, 8, 8)


def test_ids_that_lack_something_are_told_and_the_others_read(bench):
    missing, other = item_file(bench, "exemplar", "000000000460"), item_file(bench, "mask", "000000000724")
    missing.unlink()
    Image.new("L", (16, 16)).save(other)
    items, wrong = read_test_bench(bench)
    assert [(item.id, item.number) for item in items] == [("000000000139", 2)]
    first, second = wrong
    assert_line(first, "000000000460", missing)
    assert_line(second, "000000000724", other, "16x16", "8x8")
    last = item_file(bench, "mask", "000000000139")
    mask(8, 8, box=(2, 3, 3, 8)).save(last)
    with refused(bench, 3):
        read_test_bench(bench)
    mask(8, 8, box=(2, 3, 4, 8)).save(last)
    assert read_test_bench(bench)[0][0].box == (2, 3, 4, 8)
    item_file(bench, "image", "000000000139").write_bytes(b"no picture")
    with refused(bench, 3, "000000000460", "_ref.png"):
        read_test_bench(bench)


@pytest.mark.parametrize("folder", ["nowhere", "Mask_bbox_3500"])
def test_a_missing_folder(bench, folder):
    for file in (bench / "Mask_bbox_3500").iterdir():
        file.unlink()
    (bench / "Mask_bbox_3500").rmdir()
    with refused(bench, folder):
        read_test_bench(bench if folder != "nowhere" else bench / "nowhere")


@pytest.mark.parametrize(
    "content, wanted",
    [
        (np.array([], int), ()),
        (np.array([1, 2, 1]), (1,)),
        (np.array(["a"]), "00000000000a"),
        (np.array([1.0, np.inf]), "0000000001.0"),
        (np.array([-1]), "0000000000-1"),
        (np.array([10**15]), (1000000000000000,)),
        (np.array([{}], object), ()),
        (b"not numpy", ()),
        (
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<i8', 'fortran_order': False, 'shape': (10**15,), }".ljust(117)
            + b"\n",
            (),
        ),
    ],
)
def test_wrong_ids(tmp_path, content, wanted):
    file = tmp_path / "id_list.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content, allow_pickle=True)
    with refused(file, wanted):
        read_ids(file)


def test_results_in_the_order_of_the_ids(results):
    assert result_files(results, ids()) == [results / f"{id}.png" for id in ids()]


def test_strangers_missing_results_and_other_sizes(results):
    with refused(1, 4, "000000000001.png"):
        result_files(results, [*ids(), "000000000001"])
    with refused(1, "000000000139.png"):
        result_files(results, ids()[:2])
    Image.new("RGB", (8, 9)).save(results / "000000000139.png")
    with refused("000000000139.png", "8x9", "8x8"):
        result_files(results, ids())
    with refused("000000000460.png", "8x8", "8x9"):
        result_files(results, ids(), (8, 9))
    (results / "000000000139.png").write_bytes(b"no picture")
    with refused("000000000139.png"):
        result_files(results, ids())
