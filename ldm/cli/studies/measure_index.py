"""Measure `ldm read-bbox` at the size of Open Images (Linux).

ldm measure-index --root /tmp/simulated
"""

import json
import os
import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

from ldm.utils.cli import Parser, command
from ldm.utils.errors import UserError
from ldm.utils.memory import anonymous

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
)
FOLDERS = 16


def main() -> None:
    parser = Parser("Simulate the box CSV of Open Images' train split, with empty picture files, and index it.")
    parser.add_argument("--root", type=Path, required=True, help="new folder, about 4 GB; deleted at the end")
    parser.add_argument("--images", type=int, default=1_740_000, help="number of pictures")
    parser.add_argument("--rows", type=int, default=14_600_000, help="number of boxes")
    parser.add_argument("--reads", type=int, default=200_000, help="number of pictures whose boxes the worker reads")
    parser.add_argument("--keep", action="store_true", help="do not delete the folder")
    args = parser.parse_args()
    anonymous()  # raises where memory cannot be measured
    if args.root.exists() and any(args.root.iterdir()):
        raise UserError(f"--root {args.root}: expected a new or empty folder")

    try:
        # Separate processes, so that the memory of one step does not count for the next.
        alone(simulate, args.root, args.images, args.rows)
        report = index(args.root)
        report |= alone(read, args.root, args.reads)
    finally:
        if not args.keep:
            shutil.rmtree(args.root, ignore_errors=True)
    report |= {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    print(json.dumps(report, indent=1))


def alone(function, *arguments) -> dict:
    """Call the function in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        result = pool.apply(function, arguments)
        pool.close()  # lets the process end by itself and clean up
        pool.join()
        return result


def simulate(root: Path, images: int, rows: int) -> None:
    """Write the CSV, sorted by picture, and empty picture files.

    Areas are log-uniform from 0.001 to 1; a picture has one box plus a geometrically distributed number. Numbers have
    six decimals.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from tqdm import tqdm

    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(1 << 62, images + images // 100, replace=False))
    ids = [f"{value:016x}" for value in np.unique(ids)[:images].tolist()]
    extra = rng.geometric(images / rows, images).astype(float)
    ends = np.rint(np.cumsum(extra) * (rows - images) / extra.sum()).astype(int) + np.arange(1, images + 1)
    owner = np.searchsorted(ends, np.arange(rows), side="right")  # the picture of every row

    for number in range(FOLDERS):
        (root / "images" / f"train_{number:x}").mkdir(parents=True)
    for number, image_id in enumerate(tqdm(ids, "pictures")):
        path = root / "images" / f"train_{number % FOLDERS:x}" / f"{image_id}.jpg"
        os.close(os.open(path, os.O_CREAT))

    mids = [f"/m/0{value:x}" for value in range(600)]
    names, decimals = pa.array(ids), pa.array([f"{value / 1e6:.6f}" for value in range(1_000_001)])
    labels, sources, bits = pa.array(mids), pa.array(["xclick", "activemil"]), pa.array(["0", "1"])
    (root / "annotations").mkdir()
    (root / "annotations" / "class-descriptions-boxable.csv").write_text("".join(f"{mid},{mid[3:]}\n" for mid in mids))
    with open(root / "annotations" / "oidv6-train-annotations-bbox.csv", "wb") as file:
        file.write(f"{HEADER}\n".encode())
        for first in tqdm(range(0, rows, 200_000), "rows"):
            n = min(200_000, rows - first)
            area = np.exp(rng.uniform(np.log(0.001), 0, n))
            width = np.exp(rng.uniform(np.log(area), 0))
            size = np.stack([width, area / width])
            low = rng.uniform(0, 1 - size)
            edges = np.rint(np.stack([low, low + size], 1) * 1e6).astype(int).clip(0, 1_000_000)  # (2, 2, n)
            clicks = low[:, None] + size[:, None] * rng.random((2, 4, n))
            clicks = np.rint(clicks * 1e6).astype(int).clip(0, 1_000_000)
            columns = [names.take(pa.array(owner[first : first + n])), sources.take(pa.array(rng.integers(0, 2, n)))]
            columns += [labels.take(pa.array(rng.integers(0, 600, n))), pa.array(["1"] * n)]
            columns += [decimals.take(pa.array(edge)) for edge in edges.reshape(4, n)]
            columns += [bits.take(pa.array((rng.random(n) < 0.1).astype(int))) for _ in range(5)]
            columns += [decimals.take(pa.array(click)) for click in clicks.reshape(8, n)]
            file.write("\n".join(pc.binary_join_element_wise(*columns, ",").to_pylist()).encode() + b"\n")


def index(root: Path) -> dict:
    """Run `ldm read-bbox` as a user does, and measure it."""
    began = time.perf_counter()
    process = subprocess.Popen(command("read-bbox", "--root", root))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(1)  # the command has reported why
    return {
        "read_bbox seconds": seconds,
        "read_bbox processor seconds": usage.ru_utime + usage.ru_stime,
        "read_bbox peak bytes": usage.ru_maxrss * 1024,
        "index bytes": (root / "bbox" / "train.arrow").stat().st_size,
    }


def read(root: Path, reads: int) -> dict:
    """Open the index, then read boxes at random in a forked worker."""
    import numpy as np

    from ldm.data.box_index import open_boxes

    before, began = anonymous(), time.perf_counter()
    boxes = open_boxes(root, "train")
    opened, after = time.perf_counter() - began, anonymous()
    receiver, sender = os.pipe()
    if not os.fork():
        start, began = anonymous(), time.perf_counter()
        for i in np.random.default_rng(0).integers(0, len(boxes), reads).tolist():
            boxes.image(i), boxes.boxes(i, 1024, 768)
        seconds = (time.perf_counter() - began) / reads
        os.write(sender, json.dumps([anonymous() - start, seconds]).encode())
        os._exit(0)
    added, seconds = json.loads(os.read(receiver, 1000))
    return {
        "pictures with a box": len(boxes),
        **{key: boxes.about[key] for key in ("pictures", "rows", "boxes")},
        "open seconds": opened,
        "anonymous bytes added by opening": after - before,
        "anonymous bytes added by the worker": added,
        "seconds per read": seconds,
    }
