"""Edit a picture by example, with the flags and output folders of Paint by Example's script.

python scripts/inference.py --image_path A.png --mask_path B.png --reference_path C.jpg --outdir results
python scripts/inference.py --image_path A.png --box 16,20,40,52 --reference_path C.jpg --outdir results
"""

import argparse
from pathlib import Path

from ldm.utils.cli import (
    MASK_INFERENCE,
    Parser,
    add_compositing_flags,
    add_mask_inference_flags,
    add_model_flags,
    add_sampling_flags,
    box,
    note_unused,
    positive,
    run,
)

IGNORED = ("n_imgs", "n_rows", "C", "f")
RECORDED = "image_path mask_path box reference_path config ckpt edit invert_mask fixed_code H W".split()


def parse_args() -> argparse.Namespace:
    parser = Parser("Repaint a region of a picture after an exemplar picture.")
    only_if_given = {"argument_default": argparse.SUPPRESS}

    group = parser.add_argument_group("pictures", **only_if_given)
    add = group.add_argument
    add("--image_path", required=True, type=Path, help="the scene, of any size; it is edited at its own")
    region = group.add_mutually_exclusive_group(required=True)
    region.add_argument("--mask_path", type=Path, help="what to repaint: white, or painted in alpha")
    region.add_argument("--box", type=box, metavar="x0,y0,x1,y1",
        help="a box around what to repaint, in pixels, x1 and y1 exclusive; the mask is found in it")  # fmt: skip
    add("--reference_path", required=True, type=Path, help="the exemplar: what to paint there")
    add("--invert_mask", action="store_true", help="black = repaint in --mask_path")
    add("--H", type=positive, help="resize the scene to this height first")
    add("--W", type=positive, help="resize the scene to this width first")

    add_model_flags(parser, config="toyworld")

    add = parser.add_argument_group("output", **only_if_given).add_argument
    add("--outdir", type=Path, default=Path("outputs/edit"), help="gets the folders results, source and grid")
    add("--skip_save", action="store_true", help="write no results and sources")
    add("--skip_grid", action="store_true", help="write no grid")
    add("--n_iter", type=positive, default=1, help="number of batches; over all of them, sample k has seed + k")

    group = parser.add_argument_group("edit", "What is not given here is as --edit says.", **only_if_given)
    add = group.add_argument
    add("--edit", default="default", help="default, original (as the original's script) or a YAML file of your own")
    add_sampling_flags(group)
    add("--fixed_code", action="store_true", help="start all samples from the same noise, that of --seed")
    add_compositing_flags(group)
    add("--exemplar_fit", help="stretch or crop the exemplar to the encoder's square; original")
    for name in IGNORED:
        add(f"--{name}", type=int, help=argparse.SUPPRESS)

    told = "How --box finds a mask. What is not given here is as in configs/diffedit/box.yaml and default.yaml."
    add_mask_inference_flags(parser.add_argument_group("mask", told, **only_if_given))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    given = vars(args)

    import torch.nn.functional as F
    from PIL import Image
    from tqdm import tqdm

    from ldm.editors.exemplar import ExemplarEditor
    from ldm.editors.mask_inference import EmptyMask
    from ldm.editors.settings import EditSettings
    from ldm.runs.edits import save_edit, save_map
    from ldm.runs.model import open_model
    from ldm.runs.outputs import check_writable, run_record
    from ldm.runs.settings import diffedit_settings, edit_settings
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.image import open_image
    from ldm.utils.mask import box_mask, mask_box, open_mask

    note_unused(f"--{name}" for name in IGNORED if name in given)
    settings = edit_settings(args.edit, **{k: v for k, v in given.items() if k in EditSettings.__dataclass_fields__})
    image, exemplar = open_image(args.image_path), open_image(args.reference_path)
    of_the_mask = {name: given[name] for name in MASK_INFERENCE if name in given}
    inference, found = diffedit_settings("box", **of_the_mask), None
    if "box" in given:
        if "invert_mask" in given:
            raise UserError("--invert_mask: expected --mask_path with it")
        mask = box_mask(args.box, image.size)
    else:
        mask = open_mask(args.mask_path, image.size, "invert_mask" in given, settings.mask_rule)
        note_unused((f"--{name}" for name in of_the_mask), "the mask is given")
    size = given.get("W", image.width), given.get("H", image.height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
        mask = F.adaptive_max_pool2d(mask, size[::-1])  # whatever is touched is selected: nothing of it can vanish
    check_writable(args.outdir)

    device = choose_device(args.device)
    model, precision = open_model(args.config, given.get("ckpt"), device, args.precision)
    editor = ExemplarEditor(model, settings)
    print(f"{size[0]}x{size[1]}, {settings.sampler}, {settings.steps} steps, guidance {settings.guidance_scale:g}, "
          f"precision {precision}, {device}")  # fmt: skip
    record = run_record(given, RECORDED, precision, device)
    if "box" in given:
        record |= {name: getattr(inference, name) for name in MASK_INFERENCE}
        with tqdm(total=2 * inference.n_maps, desc="mask", unit="evaluation", disable=None) as bar:
            try:
                found = editor.infer_mask(image, mask_box(mask), exemplar, inference, callback=bar.update)
            except EmptyMask as error:
                bar.close()
                print(save_map(error.maps[0], args.outdir, args.image_path.stem, settings.seed, record))
                raise
        print(f"mask: {found.mask.sum() / mask.sum():.0%} of the box")
        mask = found.mask
    for batch in range(args.n_iter):
        seed = settings.seed + batch * settings.n_samples
        start_seed = settings.seed if "fixed_code" in given else None
        with tqdm(total=settings.steps, desc=f"seed {seed}", unit="step", disable=None) as bar:
            result = editor(image, mask, exemplar, seed=seed, start_seed=start_seed, callback=lambda *_: bar.update())  # noqa: B023
        save, grid = "skip_save" not in given, "skip_grid" not in given
        found_map = None if found is None else found.map[0, 0]
        for path in save_edit(result, image, args.outdir, args.image_path.stem, record, save, grid, found_map):
            print(path)


if __name__ == "__main__":
    run(main)
