"""Jobs of a list (`ldm.runs.jobs`) as batches of the editors.

Each function returns what `ldm.runs.work.work_through` wants: one that opens a job, and one that makes pictures of a
batch of jobs opened. A UserError from the first, or in the place of a picture, is of that job alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor

from ldm.editors.compose import Region
from ldm.editors.diffedit import DiffEdit, DiffEditResult, Request
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.mask_inference import EmptyMask
from ldm.editors.repaint import RePaint, Wish
from ldm.runs.jobs import Job
from ldm.runs.outputs import save_png
from ldm.utils.errors import UserError
from ldm.utils.holes import hole_mask
from ldm.utils.image import open_image
from ldm.utils.mask import open_mask
from ldm.utils.overlay import heat_map

T = TypeVar("T")
Made = Sequence[Image.Image | UserError]
OpenAndMake = tuple[Callable[[Job], T], Callable[[Sequence[T]], Made]]


def exemplar_work(editor: ExemplarEditor, *, invert: bool = False) -> OpenAndMake[tuple[Region, Tensor, int]]:
    """To edit the pictures of jobs by example, by the editor's settings; a job has a mask and one exemplar or more.

    Args:
        invert: black = repaint in the masks.
    """
    settings = editor.settings

    def open_job(job: Job) -> tuple[Region, Tensor, int]:
        image = open_image(job.image)
        if job.mask is None:
            raise UserError("no mask")
        mask = open_mask(job.mask, image.size, invert, settings.mask_rule)
        exemplars = [open_image(file) for file in job.exemplars]
        _, context = editor.condition(exemplars, job.weights, settings.exemplar_fit)
        return editor.region(image, mask, settings), context, settings.seed if job.seed is None else job.seed

    def make(batch: Sequence[tuple[Region, Tensor, int]]) -> Made:
        return editor.edit_all(*zip(*batch, strict=True), settings)

    return open_job, make


def repaint_work(
    editor: RePaint,
    *,
    negative: str = "",
    mask_type: str | None = None,
    mask_seed: int | None = None,
    invert: bool = False,
) -> OpenAndMake[tuple[Region, Wish, int]]:
    """To fill the holes of jobs by the editor's settings; a job may have a class_id, a prompt or an exemplar.

    Args:
        negative: see `RePaint`.
        mask_type: a kind of `ldm.utils.holes` for jobs that have no mask.
        mask_seed: of these, by default each job's own seed.
        invert: black = repaint in the masks that jobs have.
    """
    settings = editor.settings

    def open_job(job: Job) -> tuple[Region, Wish, int]:
        image, seed = open_image(job.image), settings.seed if job.seed is None else job.seed
        if job.mask is not None:
            mask = open_mask(job.mask, image.size, invert, settings.mask_rule, resize=False)
        elif mask_type is not None:
            mask = hole_mask(mask_type, image.size, seed if mask_seed is None else mask_seed)
        else:
            raise UserError("no mask")
        if len(job.exemplars) > 1:
            raise UserError(f"exemplar: there are {len(job.exemplars)}, RePaint takes one")
        exemplar = open_image(job.exemplars[0]) if job.exemplars else None
        wish = editor.wish(job.class_id, job.prompt, negative, exemplar)
        return editor.region(image, mask, settings), wish, seed

    def make(batch: Sequence[tuple[Region, Wish, int]]) -> Made:
        return editor.fill_all(*zip(*batch, strict=True), settings)

    return open_job, make


def diffedit_work(
    editor: DiffEdit, folder: Path, *, negative: str = "", invert: bool = False
) -> OpenAndMake[tuple[str, Request]]:
    """To edit the pictures of jobs after their prompts; a job may have a source_prompt and a mask.

    Args:
        folder: gets the maps of jobs in which nothing was found to edit, `map/<name>.png`.
        negative: see `DiffEdit`.
        invert: black = edit in the masks that jobs have.
    """
    settings, tokenizer = editor.settings, editor.model.conditioner.encoder.tokenizer

    def open_job(job: Job) -> tuple[str, Request]:
        image, prompt, source = open_image(job.image), job.prompt or "", job.source_prompt or ""
        if not prompt.strip():
            raise UserError("prompt: is empty, expected what the picture is to show")
        tokenizer([prompt, source])  # refuses what it cannot read
        mask = job.mask and open_mask(job.mask, image.size, invert, settings.mask_rule, resize=False)
        return job.name, Request(image, [prompt], source, mask, job.seed)

    def make(batch: Sequence[tuple[str, Request]]) -> Made:
        results = editor.edit_all([request for _, request in batch], negative=negative)
        return [picture(*opened, result) for opened, result in zip(batch, results, strict=True)]

    def picture(name: str, request: Request, result: DiffEditResult | EmptyMask) -> Image.Image | UserError:
        if isinstance(result, DiffEditResult):
            return result.images[0]
        told = {"prompt": request.targets[0], "source_prompt": request.source}
        save_png(heat_map(result.maps[0]), folder / "map" / f"{name}.png", told)
        return result

    return open_job, make
