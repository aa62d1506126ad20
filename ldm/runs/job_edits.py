"""Adapters from the jobs of a list (`ldm.runs.jobs`) to requests to the editors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image

from ldm.editors.diffedit import DiffEdit, DiffEditRequest
from ldm.editors.editor import Result
from ldm.editors.exemplar import ExemplarEditor, ExemplarRequest
from ldm.editors.mask_inference import EmptyMask
from ldm.editors.repaint import RePaint, RePaintRequest
from ldm.runs.jobs import Job
from ldm.utils.errors import UserError
from ldm.utils.holes import hole_mask
from ldm.utils.image import open_image
from ldm.utils.mask import open_mask
from ldm.utils.overlay import heat_map
from ldm.utils.png import save_png

R = TypeVar("R")


class JobEditor(Protocol[R]):
    """An editor that makes the pictures of jobs."""

    def open(self, job: Job) -> R:
        """Read a job's files.

        Raises:
            UserError: something is wrong with this job.
        """

    def make(self, jobs: Sequence[Job], requests: Sequence[R]) -> Sequence[Image.Image | UserError]:
        """Make the pictures of opened jobs; a UserError instead of a picture says why it failed."""


@dataclass(frozen=True)
class ExemplarJobs:
    """Edits by example; a job has a mask and one or more exemplars.

    Attributes:
        invert: black = repaint in the masks.
    """

    editor: ExemplarEditor
    invert: bool = False

    def open(self, job: Job) -> ExemplarRequest:
        image = open_image(job.image)
        if job.mask is None:
            raise UserError("mask: missing")
        mask = open_mask(job.mask, image.size, self.invert, self.editor.settings.mask_rule)
        return ExemplarRequest(image, mask, [open_image(file) for file in job.exemplars], job.weights, job.seed)

    def make(self, jobs: Sequence[Job], requests: Sequence[ExemplarRequest]) -> list[Image.Image | UserError]:
        return [picture_of(result) for result in self.editor.edit_all(requests)]


@dataclass(frozen=True)
class RePaintJobs:
    """Hole filling by RePaint; a job may have a class_id, a prompt or an exemplar.

    Attributes:
        negative: the negative prompt, see `RePaint`.
        mask_type: a kind of `ldm.utils.holes`, for jobs without a mask.
        mask_seed: seed of these masks, by default each job's own seed.
        invert: black = repaint in the jobs' masks.
    """

    editor: RePaint
    negative: str = ""
    mask_type: str | None = None
    mask_seed: int | None = None
    invert: bool = False

    def open(self, job: Job) -> RePaintRequest:
        settings, image = self.editor.settings, open_image(job.image)
        seed = settings.seed if job.seed is None else job.seed
        if job.mask is not None:
            mask = open_mask(job.mask, image.size, self.invert, settings.mask_rule, resize=False)
        elif self.mask_type is not None:
            mask = hole_mask(self.mask_type, image.size, seed if self.mask_seed is None else self.mask_seed)
        else:
            raise UserError("mask: missing")
        if len(job.exemplars) > 1:
            raise UserError(f"exemplar: found {len(job.exemplars)}, expected one for RePaint")
        exemplar = open_image(job.exemplars[0]) if job.exemplars else None
        return RePaintRequest(image, mask, job.class_id, job.prompt, self.negative, exemplar, seed)

    def make(self, jobs: Sequence[Job], requests: Sequence[RePaintRequest]) -> list[Image.Image | UserError]:
        return [picture_of(result) for result in self.editor.edit_all(requests)]


@dataclass(frozen=True)
class DiffEditJobs:
    """Edits by prompt; a job may have a source_prompt and a mask.

    Attributes:
        folder: for the maps of jobs whose inferred mask is empty, `map/<name>.png`.
        negative: the negative prompt, see `DiffEdit`.
        invert: black = edit in the jobs' masks.
    """

    editor: DiffEdit
    folder: Path
    negative: str = ""
    invert: bool = False

    def open(self, job: Job) -> DiffEditRequest:
        image, prompt, source = open_image(job.image), job.prompt or "", job.source_prompt or ""
        if not prompt.strip():
            raise UserError("prompt: empty, expected a description of the edited picture")
        self.editor.model.conditioner.encoder.tokenizer([prompt, source])  # raises for text that it cannot encode
        rule, mask = self.editor.settings.mask_rule, None
        if job.mask is not None:
            mask = open_mask(job.mask, image.size, self.invert, rule, resize=False)
        return DiffEditRequest(image, [prompt], source, mask, job.seed)

    def make(self, jobs: Sequence[Job], requests: Sequence[DiffEditRequest]) -> list[Image.Image | UserError]:
        results = self.editor.edit_all(requests, negative=self.negative)
        for job, request, result in zip(jobs, requests, results, strict=True):
            if isinstance(result, EmptyMask):
                record = {"prompt": request.targets[0], "source_prompt": request.source}
                save_png(heat_map(result.maps[0]), self.folder / "map" / f"{job.name}.png", record)
        return [picture_of(result) for result in results]


def picture_of(result: Result | UserError) -> Image.Image | UserError:
    """Return the picture of a job's result, or the error."""
    return result if isinstance(result, UserError) else result.images[0]
