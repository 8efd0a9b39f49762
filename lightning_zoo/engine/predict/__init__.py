"""Using a model on one's own images and videos.

inputs.py        files, folders and patterns; reading ahead
sources.py       the run, checkpoint or model that predicts
thresholds.py    from which score something counts
classification.py detection.py segmentation.py video.py    one task each: its results, its networks
films.py         videos frame by frame, and the annotated ones
results.py       what all results have in common
writers.py       pictures and tables in the folder of --out
job.py           all of it together
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_zoo.engine.predict.classification import Prediction
from lightning_zoo.engine.predict.detection import DetectedObject, Detections
from lightning_zoo.engine.predict.inputs import find_files
from lightning_zoo.engine.predict.job import Job, plan
from lightning_zoo.engine.predict.results import ImageResult, Result, VideoResult
from lightning_zoo.engine.predict.segmentation import Segmentation
from lightning_zoo.engine.predict.sources import TASKS, Source, find_source, load_predictor

__all__ = [
    "TASKS", "DetectedObject", "Detections", "ImageResult", "Job", "Prediction", "Result",
    "Segmentation", "Source", "VideoResult", "find_files", "find_source", "load_predictor", "plan",
    "predict",
]  # fmt: skip


def predict(
    what: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    weights: str = "DEFAULT",
    threshold: float | None = None,
    every: int = 1,
    save: Sequence[str] = (),
    runs: str | Path = "runs",
    debug: bool = False,
    broken: list[str] | None = None,
) -> list[Result]:
    """Use a run, a checkpoint or a published model on images and videos.

    >>> import lightning_zoo as lz
    >>> for result in lz.predict("runs/last", ["photos/", "street.mp4"], out="out/"):
    ...     print(result.file, result.summary())
    >>> (found,) = lz.predict("maskrcnn_resnet50_fpn", "dog.jpg", threshold=0.7)
    >>> found.plot().show()
    >>> found.save("dog.json")
    >>> found.to_coco(image_id=17)

    Args:
        what: A run (folder, ``last``, a recipe's name), a checkpoint, or a model's name.
        inputs: Files, folders (which are searched in depth) and patterns such as
            ``photos/**/*.jpg``; one of them may stand alone. Models of images take videos, too,
            frame by frame.
        out: Folder for ``predictions.json``, ``grid.png``, one picture an image (of segmentation
            also ``<name>_mask.png`` with the label of each pixel) and one annotated mp4 a video;
            None for none.
        weights: With a model's name: which of its published weights, or a file.
        threshold: Score from which an object, or one of several labels of an image, counts; left
            out, the run's own thresholds by class where it has some, else 0.5.
        every: Take each n-th frame of videos.
        save: Tables to be written beside ``predictions.json``: ``coco`` (``predictions_coco.json``,
            the content of a COCO file with scores) and ``csv`` (``predictions.csv``).
        runs: Folder of the run folders.
        debug: Let Lightning speak.
        broken: List that takes one sentence for each file that cannot be read, or not to its end;
            without it, the first such file is an error.

    Returns:
        For each file a :class:`Prediction` of a classifier, :class:`Detections` of a detector or a
        :class:`Segmentation`; for each video of a model of images a :class:`VideoResult`, whose
        frames are such results.

    Raises:
        ZooError: If there is no such run or model, or no file that it can be used on.
    """
    job = plan(
        what, inputs, out=out, weights=weights, threshold=threshold, every=every, save=save,
        runs=runs, debug=debug,
    )  # fmt: skip
    return list(job.run(broken))
