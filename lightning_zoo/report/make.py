"""From a run to its page, and its thresholds into the checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_zoo.callbacks.checkpoints import add_to_checkpoints
from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import real_classes
from lightning_zoo.report.data import summarise
from lightning_zoo.report.history import History
from lightning_zoo.report.measure import Measured, measure
from lightning_zoo.report.page import Content, Picture, render
from lightning_zoo.report.pictures import data_uri, sample_of
from lightning_zoo.runs import Run, find_run, write_text


@dataclass(frozen=True)
class Report:
    """What a report came to.

    Attributes:
        path: The page.
        metrics: Figures by name as ``validate`` prints them, ``val/box_map50`` in per cent.
        thresholds: The best score of each class by its name; empty where a class needs none.
    """

    path: Path
    metrics: dict[str, float]
    thresholds: dict[str, float]


def make_report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    debug: bool = False,
) -> Path:
    """Write one self-contained HTML page of a run, and its thresholds into its checkpoints.

    The best checkpoint goes once through the validation split, on one device. Detectors and
    classifiers of several labels get a threshold for each class: the score from which on F1, the
    harmonic mean of precision and recall, is highest on the validation split (of several such
    scores the highest; halfway down to the next lower score that was seen). An object is right
    where it has an IoU of at least 0.5 with a true one of its class that no better one has taken.
    Classes that are never true, never found or never right have the threshold 0.5. Best and last
    checkpoint keep them as ``checkpoint["lightning_zoo"]["thresholds"]``.

    Args:
        run: A run: its folder, ``last`` or a recipe's name (its newest run).
        out: The page; None writes ``report.html`` into the run's folder.
        runs: Folder of the run folders.
        debug: Let Lightning speak.

    Returns:
        The page.

    Raises:
        ZooError: If there is no such run, it has no checkpoint, or its data is gone.
    """
    return write_report(run, out=out, runs=runs, debug=debug).path


def write_report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    debug: bool = False,
) -> Report:
    """Do what :func:`make_report` does, and return the figures too."""
    found = named_run(run, Path(runs))
    path = found.path / "report.html" if out is None else Path(out)
    if path.is_dir():
        path = path / "report.html"
    if not path.parent.is_dir():
        raise ZooError(f"--out is {str(path)!r}, and there is no folder {str(path.parent)!r}")
    measured = measure(found, debug=debug)
    thresholds = measured.findings.thresholds
    write_text(path, render(_content(found, measured)))
    if thresholds:
        add_to_checkpoints([found.best, found.last], thresholds=thresholds)
    metrics = {f"val/{name}": value for name, value in measured.findings.metrics.items()}
    return Report(path, metrics, thresholds)


def named_run(run: str | Path, runs: Path) -> Run:
    """Return the run that is meant.

    Raises:
        ZooError: If there is none, or a checkpoint alone is named.
    """
    path = Path(run)
    if path.suffix == ".ckpt":
        of_run = path.parent.name == "checkpoints"
        command = f": python -m lightning_zoo report {path.parent.parent}" if of_run else ""
        raise ZooError(
            f"a report is of a whole run, and {str(run)!r} is a checkpoint; name the run's folder"
            f"{command}"
        )
    return find_run(run, runs)


def _content(run: Run, measured: Measured) -> Content:
    task, data, recipe = measured.task, measured.data, measured.recipe
    unit = "video" if getattr(data, "target", None) == "video" else "image"
    pictures = []
    for mistake in measured.findings.mistakes:
        sample, file = sample_of(data.datasets["val"], mistake.id)
        panels = [(panel, data_uri(panel.image)) for panel in mistake.show(sample)]
        pictures.append(Picture(mistake, file, panels))
    names = data.class_names
    epochs = recipe.get("trainer.max_epochs")
    return Content(
        run=run,
        state=run.state(),
        model=recipe.model,
        root=str(data.root),
        classes=len(names) if task.counts_background else len(real_classes(names)),
        unit=unit,
        monitor=task.monitor,
        headline=task.headline or ("acc@1", "acc@5", "clip_acc@1", "map"),
        epoch=measured.epoch,
        epochs=epochs if isinstance(epochs, int) and epochs > 0 else None,
        findings=measured.findings,
        pictures=pictures,
        data=summarise(data, unit),
        skipped=measured.skipped,
        history=History(run.path / "metrics.csv"),
        next_verb="quantize" if recipe.is_int8 else "validate",
    )
