"""The loggers of a training: a CSV file, TensorBoard, and optionally Weights & Biases."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from ldm.utils.errors import UserError
from ldm.utils.files import replacing


class CsvLogger(Logger):
    """One table for a whole training, even if it was interrupted: a row per call that logs metrics.

    A resumed training continues the file. Rows of its first step and of later ones, which it will write again, are
    removed. (Lightning's logger starts a new folder, or removes the file.)

    Args:
        file: path; its columns are `step`, the optimizer steps done, and every metric so far in alphabetical order.
    """

    def __init__(self, file: Path):
        super().__init__()
        self.file = file
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *_) -> None:
        """Do nothing: the config is a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **{name: value for name, value in metrics.items() if name != "epoch"}}
        new = [name for name in row if name not in self.columns]
        if new:
            self._rewrite(new, None if self.columns else step)
        with open(self.file, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _rewrite(self, new: list[str], before: int | None) -> None:
        """Rewrite the table with new columns, keeping the rows `before` a step (None: all)."""
        rows = []
        if self.file.exists():
            with open(self.file, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if before is None or int(row["step"]) < before]
                self.columns = list(reader.fieldnames or self.columns)
        self.columns = ["step", *sorted({*self.columns, *new} - {"step"})]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


def make_loggers(logdir: Path, wandb: str | None, config: Mapping[str, Any]) -> list[Logger]:
    """Return the loggers that write to `logdir`: csv/metrics.csv, tensorboard/ and optionally wandb/.

    A resumed training continues all three: the table, TensorBoard's folder with another file, and wandb's run.
    TensorBoard and wandb show the config. With WANDB_MODE=offline nothing is sent; use `wandb sync` later.

    Args:
        wandb: name of a project; None or "" disables it.
        config: plain values.

    Raises:
        UserError: wandb cannot start the run (no login, no network).
    """
    board = TensorBoardLogger(logdir, name="tensorboard", version="", default_hp_metric=False)
    if not list(Path(board.log_dir).glob("events.*")):
        text = OmegaConf.to_yaml(config)
        board.experiment.add_text(
            "config", "".join(f"    {line}\n" for line in text.splitlines())
        )  # a Markdown code block
    loggers = [CsvLogger(logdir / "csv" / "metrics.csv"), board]
    if wandb:
        loggers.append(_wandb_logger(logdir, wandb))
        loggers[-1].log_hyperparams(dict(config))
    return loggers


def _wandb_logger(logdir: Path, project: str) -> WandbLogger:
    import wandb  # slow to import, so only if used

    runs = sorted(logdir.glob("wandb/*run-*-*"), key=lambda path: path.name.split("run-")[1])
    run = runs[-1].name.rsplit("-", 1)[1] if runs else None  # of offline-run-20261121_105900-a1b2c3d4
    logger = WandbLogger(name=logdir.name, project=project, save_dir=logdir, id=run, settings={"console": "off"})
    try:
        logger.experiment  # noqa: B018 - starts the run
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise UserError(f"wandb {project}: {reason} (WANDB_MODE=offline keeps the files in {logdir})") from error
    return logger
