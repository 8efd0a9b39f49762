"""Predictions as W&B shows them: boxes and masks to be switched on and off, by class and score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

from lightning_zoo.drawing.arrays import ClassNames, as_array, class_name, decode_mask
from lightning_zoo.drawing.grid import Tile, draw_tile
from lightning_zoo.models.registry import real_classes

MOST_BOXES = 100
# W&B keeps a mask as an image of bytes.
MOST_LABELS = 255
TILE_SIDE = 224


def wandb_detection_image(
    image: NDArray[np.uint8],
    prediction: Mapping[str, Any],
    truth: Mapping[str, Any] | None,
    class_names: ClassNames,
    *,
    caption: str | None = None,
    score_threshold: float = 0.1,
    mask_threshold: float = 0.5,
) -> Any:
    """Return a ``wandb.Image`` with boxes and masks under ``predictions`` and ``ground_truth``.

    All masks of one side are one map of labels: a better prediction lies on a worse one, and a
    smaller true object on a larger one. Labels above 255 have boxes alone.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        prediction: ``boxes`` (N, 4) ``x1, y1, x2, y2`` in pixels, ``labels, scores``, maybe
            ``masks``.
        truth: ``boxes, labels`` and maybe ``masks, iscrowd``; None where nobody knows.
        class_names: Name of each label, by position or as a mapping.
        caption: Line below the image.
        score_threshold: Boxes from this score on are kept, for W&B's own slider to choose from.
        mask_threshold: Masks from this score on are kept.
    """
    import wandb

    names = {label: name for label, name in real_classes(class_names).items() if label}
    scores = as_array(prediction["scores"]).astype(np.float64)
    best = np.argsort(-scores, kind="stable")[:MOST_BOXES].tolist()
    kept = [i for i in best if scores[i] >= score_threshold]
    sides: dict[str, tuple[Mapping[str, Any], list[int], NDArray[np.float64] | None]] = {
        "predictions": (prediction, kept, scores)
    }
    if truth is not None:
        areas = _areas(as_array(truth["boxes"]))
        sides["ground_truth"] = (truth, np.argsort(areas, kind="stable").tolist(), None)
    boxes, masks = {}, {}
    for side, (objects, order, side_scores) in sides.items():
        boxes[side] = _boxes(objects, order, side_scores, names)
        if objects.get("masks") is not None:
            if side_scores is not None:
                order = [i for i in order if side_scores[i] >= mask_threshold]
            masks[side] = _label_map(objects, order, image.shape[:2], names)
    return wandb.Image(image, boxes=boxes, masks=masks or None, caption=caption)


def _areas(boxes: NDArray[Any]) -> NDArray[Any]:
    boxes = boxes.reshape(-1, 4)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _boxes(
    objects: Mapping[str, Any],
    order: Sequence[int],
    scores: NDArray[np.float64] | None,
    names: Mapping[int, str],
) -> dict[str, Any]:
    rows = as_array(objects["boxes"]).reshape(-1, 4).astype(np.float64)
    labels = as_array(objects["labels"]).astype(np.int64).tolist()
    crowds = objects.get("iscrowd")
    found = []
    for i in order:
        if not np.isfinite(rows[i]).all():
            continue
        name = class_name(names, labels[i])
        box: dict[str, Any] = {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), rows[i].tolist(), strict=True)),
            "domain": "pixel",
            "class_id": labels[i],
            "box_caption": name,
        }
        if scores is not None:
            box["scores"] = {"score": float(scores[i])}
            box["box_caption"] = f"{name} {100 * scores[i]:.0f} %"
        elif crowds is not None and int(crowds[i]):
            box["box_caption"] = f"{name} (crowd)"
        found.append(box)
    used = {box["class_id"] for box in found}
    return {"box_data": found, "class_labels": _with_used(names, used)}


def _label_map(
    objects: Mapping[str, Any],
    order: Sequence[int],
    size: tuple[int, ...],
    names: Mapping[int, str],
) -> dict[str, Any]:
    """Return the masks as one map of labels, the first of ``order`` on top."""
    labels = as_array(objects["labels"]).astype(np.int64).tolist()
    picture = np.zeros(size, np.uint8)
    for i in reversed(order):
        if labels[i] <= MOST_LABELS:
            picture[decode_mask(objects["masks"], i)] = labels[i]
    used = set(np.unique(picture).tolist()) - {0}
    return {"mask_data": picture, "class_labels": _with_used(names, used)}


def _with_used(names: Mapping[int, str], used: set[int]) -> dict[int, str]:
    return {label: class_name(names, label) for label in sorted({*names, *used})}


def log_images(logger: WandbLogger, panels: Mapping[str, Sequence[Any]], *, step: int) -> None:
    """Log ``wandb.Image`` objects as they are, overlays included, as one row.

    Args:
        logger: Where to.
        panels: Name of each panel and its images, such as :func:`wandb_detection_image` returns.
        step: Optimizer steps so far.
    """
    rows: dict[str, Any] = {key: list(images) for key, images in panels.items()}
    logger.log_metrics(rows, step)


def log_predictions(
    logger: WandbLogger,
    batch: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
    tiles: Sequence[Tile],
    class_names: ClassNames,
    *,
    key: str = "val/predictions",
    step: int,
) -> None:
    """Log the predictions on a batch: drawn ones of a classifier, overlays of a detector.

    W&B knows no skeletons: those of a keypoint detector are logged as they are drawn, too.

    Args:
        logger: Where to.
        batch: Samples with ``image`` and, for a detector, ``target``.
        outputs: What ``predict_step`` returned, in one part or several.
        tiles: The same predictions as they are drawn into the run's folder.
        class_names: Name of each label.
        key: Name of the panel.
        step: Optimizer steps so far.
    """
    import wandb

    captions = [" | ".join(tile.lines) for tile in tiles]
    found = [one for part in outputs for one in part.get("detections", ())]
    panels: dict[str, list[Any]] = {}
    if found:
        panels[key] = [
            wandb_detection_image(
                as_array(image.permute(1, 2, 0)), one, truth, class_names, caption=caption
            )
            for image, one, truth, caption in zip(
                batch["image"], found, batch["target"], captions, strict=True
            )
        ]
    if not found or "keypoints" in found[0]:
        drawn = [draw_tile(tile, None if tile.wide else TILE_SIDE) for tile in tiles]
        panels[f"{key}_drawn" if found else key] = [
            wandb.Image(picture, caption=caption)
            for picture, caption in zip(drawn, captions, strict=True)
        ]
    log_images(logger, panels, step=step)
