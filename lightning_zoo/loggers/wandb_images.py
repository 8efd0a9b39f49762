"""Predictions as W&B shows them: boxes, masks and label maps to be switched on and off; clips."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

from lightning_zoo.drawing.arrays import ClassNames, as_array, class_name, decode_mask
from lightning_zoo.drawing.grid import Tile, draw_tile
from lightning_zoo.drawing.segmentation import VOID, is_background
from lightning_zoo.models.registry import real_classes

MOST_BOXES = 100
# W&B keeps a mask as an image of bytes.
MOST_LABELS = 255
TILE_SIDE = 224
FRAME_RATE = 15.0  # of clips that keep every frame of their video


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
            mask = decode_mask(objects["masks"], i)  # smaller than an image that was padded
            picture[: mask.shape[0], : mask.shape[1]][mask] = labels[i]
    used = set(np.unique(picture).tolist()) - {0}
    return {"mask_data": picture, "class_labels": _with_used(names, used)}


def _with_used(names: Mapping[int, str], used: set[int]) -> dict[int, str]:
    return {label: class_name(names, label) for label in sorted({*names, *used})}


def wandb_segmentation_image(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    class_names: ClassNames,
    *,
    caption: str | None = None,
) -> Any:
    """Return a ``wandb.Image`` with label maps under ``predictions`` and ``ground_truth``.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        labels: uint8 ``(H, W)``, the predicted classes.
        truth: uint8 ``(H, W)``, the true classes and 255 for void; None where nobody knows.
        class_names: Name of each label, by position or as a mapping. The background has none.
        caption: Line below the image.
    """
    import wandb

    names = {i: name for i, name in real_classes(class_names).items() if not is_background(name)}
    masks = {}
    for side, picture in (("predictions", labels), ("ground_truth", truth)):
        if picture is None:
            continue
        used = set(np.unique(picture).tolist())
        extra = {VOID: "void"} if VOID in used else {}
        used = {i for i in used - {VOID} if not is_background(class_name(class_names, i))}
        masks[side] = {"mask_data": picture, "class_labels": _with_used(names, used) | extra}
    return wandb.Image(image, masks=masks, caption=caption)


def wandb_video(frames: NDArray[np.uint8], *, frame_rate: float, caption: str | None = None) -> Any:
    """Return a ``wandb.Video``, encoded here: W&B alone would need moviepy for that.

    Args:
        frames: uint8 RGB ``(T, H, W, 3)``.
        frame_rate: Frames a second.
        caption: Line below the video.
    """
    import wandb

    encoded = io.BytesIO(encode_mp4(frames, frame_rate))
    return wandb.Video(encoded, caption=caption, format="mp4")


def encode_mp4(frames: NDArray[np.uint8], frame_rate: float) -> bytes:
    """Return frames, uint8 RGB ``(T, H, W, 3)``, as a file that browsers play.

    An odd row or column at the edge is left out: the colours of H.264 come in pairs of pixels.
    """
    import av

    # PyAV's own wheels have both; browsers play the second only where nothing better is built in
    name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    height, width = (side - side % 2 for side in frames.shape[1:3])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        rate = Fraction(frame_rate).limit_denominator(1001)
        stream: Any = container.add_stream(name, rate=rate, options={"crf": "18", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for pixels in frames[:, :height, :width]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def log_images(logger: WandbLogger, panels: Mapping[str, Sequence[Any]], *, step: int) -> None:
    """Log ``wandb.Image`` or ``wandb.Video`` objects as they are, as one row.

    Args:
        logger: Where to.
        panels: Name of each panel and what it shows, such as :func:`wandb_detection_image` returns.
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
    frame_rate: float | None = None,
) -> None:
    """Log the predictions on a batch: drawn ones of a classifier, overlays of others, clips.

    W&B knows no skeletons: those of a keypoint detector are logged as they are drawn, too.

    Args:
        logger: Where to.
        batch: Samples with ``image`` or ``video``, and ``target`` or ``mask`` where there is one.
        outputs: What ``predict_step`` returned, in one part or several.
        tiles: The same predictions as they are drawn into the run's folder.
        class_names: Name of each label.
        key: Name of the panel.
        step: Optimizer steps so far.
        frame_rate: Frames a second of clips; None where nobody knows.
    """
    captions = [" | ".join(tile.lines) for tile in tiles]
    panels: dict[str, list[Any]] = {}
    if "video" in batch:
        panels[key] = [
            wandb_video(
                as_array(clip.permute(1, 2, 3, 0)),
                frame_rate=frame_rate or FRAME_RATE,
                caption=caption,
            )
            for clip, caption in zip(batch["video"], captions, strict=True)
        ]
    elif "segmentation" in outputs[0]:
        maps = [as_array(one) for part in outputs for one in part["segmentation"]]
        sides = same_size(maps, VOID), same_size([as_array(one) for one in batch["mask"]], VOID)
        panels[key] = [
            wandb_segmentation_image(image, one, truth, class_names, caption=caption)
            for image, one, truth, caption in zip(
                same_size(_pixels(batch)), *sides, captions, strict=True
            )
        ]
    elif "detections" in outputs[0]:
        found = [one for part in outputs for one in part["detections"]]
        panels[key] = [
            wandb_detection_image(image, one, truth, class_names, caption=caption)
            for image, one, truth, caption in zip(
                same_size(_pixels(batch)), found, batch["target"], captions, strict=True
            )
        ]
        if "keypoints" in found[0]:
            panels[f"{key}_drawn"] = _drawn(tiles, captions)
    else:
        panels[key] = _drawn(tiles, captions)
    log_images(logger, panels, step=step)


def same_size(pictures: Sequence[NDArray[np.uint8]], fill: int = 0) -> list[NDArray[np.uint8]]:
    """Return the pictures padded at the right and bottom to the largest height and width.

    W&B shows all pictures of a panel in the shape of the first.
    """
    height, width = (max(picture.shape[i] for picture in pictures) for i in (0, 1))
    padded = []
    for picture in pictures:
        canvas = np.full((height, width, *picture.shape[2:]), fill, np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        padded.append(canvas)
    return padded


def _pixels(batch: Mapping[str, Any]) -> list[NDArray[np.uint8]]:
    return [as_array(image.permute(1, 2, 0)) for image in batch["image"]]


def _drawn(tiles: Sequence[Tile], captions: Sequence[str]) -> list[Any]:
    import wandb

    return [
        wandb.Image(draw_tile(tile, None if tile.wide else TILE_SIDE), caption=caption)
        for tile, caption in zip(tiles, captions, strict=True)
    ]
