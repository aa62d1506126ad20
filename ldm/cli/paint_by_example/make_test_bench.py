"""Draw synthetic items in the layout of COCOEE.

ldm make-test-bench --out dataset/test_bench --count 100
"""

from pathlib import Path

from ldm.utils.cli import Parser, positive


def main() -> None:
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--outdir", "--out", dest="out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=positive, default=3500, help="number of items")
    parser.add_argument("--reference", type=positive, default=2000, help="number of real pictures in test_set_GT")
    parser.add_argument("--size", type=positive, default=64, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=3500, help="another seed draws other scenes")
    args = parser.parse_args()

    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from ldm.benchmark.layout import item_file
    from ldm.runs.outputs import check_writable
    from ldm.toyworld.render import render_scene, scene_id
    from ldm.toyworld.scenes import ExemplarScenes
    from ldm.utils.errors import UserError
    from ldm.utils.files import replacing
    from ldm.utils.image import to_pil
    from ldm.utils.mask import mask_picture
    from ldm.utils.png import save_png

    check_writable(args.out)
    real, id_list = args.out / "test_set_GT", args.out / "id_list.npy"
    if real.is_dir() and (held := len(list(real.iterdir()))) > args.reference:
        raise UserError(f"{real}: contains {held} pictures, expected {args.reference} or fewer; use another folder")
    id_list.unlink(missing_ok=True)  # written last, it marks a complete test bench
    ids = [139 * (k + 1) for k in range(args.count)]  # with gaps, like COCO's
    items = ExemplarScenes(args.seed, args.count, args.size)
    for id, item in zip(tqdm(ids, desc="items", disable=None), items, strict=True):
        pictures = {
            "image": to_pil(item["image"]),
            "mask": mask_picture(item["mask"][None]),
            "exemplar": item["exemplar"],
        }
        for kind, picture in pictures.items():
            save_png(picture, item_file(args.out, kind, f"{id:012d}"))
    for k in tqdm(range(args.reference), desc="real pictures", disable=None):
        scene = render_scene(np.random.default_rng(scene_id(args.seed, "real", k)), args.size)
        save_png(Image.fromarray(scene.image), real / f"{k:012d}.png")
    with replacing(id_list) as partial, open(partial, "wb") as file:
        np.save(file, np.array(ids))
    print(f"{args.out}: {args.count} items, {args.reference} real pictures, {args.size}x{args.size}")
