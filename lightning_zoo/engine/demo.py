from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_zoo.engine.fit import FitResult, fit
from lightning_zoo.engine.moving import write_moving
from lightning_zoo.engine.predict import predict
from lightning_zoo.engine.scenes import write_masks, write_scenes
from lightning_zoo.engine.shapes import write_shapes
from lightning_zoo.errors import unknown

PHOTOS = 24  # in the grid


@dataclass(frozen=True)
class Demo:
    """What one task shows.

    Attributes:
        data: What the pictures are.
        write: Writes them to a folder.
        photos: Returns pictures to predict on, from that folder.
        settings: Further keys of the recipe, from that folder.
        figures: What counts in the end: the metric's name and how a person calls it.
        next: What to do next with one's own pictures.
    """

    data: str
    write: Callable[[Path], None]
    photos: Callable[[Path], Sequence[Path]]
    settings: Callable[[Path], dict[str, Any]]
    figures: dict[str, str]
    next: str


def _of_each_class(data: Path) -> list[Path]:
    folders = [sorted(folder.iterdir()) for folder in sorted((data / "val").iterdir())]
    return [folder[i] for i in range(4) for folder in folders]  # a column of the grid each


def _images(data: Path) -> list[Path]:
    return sorted((data / "images" / "val").iterdir())[:PHOTOS]


def _scenes(data: Path) -> list[Path]:
    return sorted((data / "val2017").iterdir())[:PHOTOS]


def _nothing(data: Path) -> dict[str, Any]:
    return {}


def _kite(data: Path) -> dict[str, Any]:
    skeleton = str(data / "kite.yaml")
    return {"model.keypoints": skeleton, "data.keypoints": skeleton}


COCO_NEXT = (
    "with COCO in data/coco (python scripts/prepare_coco.py), or your own files in its layout:\n"
    "  python -m lightning_zoo "
)
CLASSIFICATION = Demo(
    data="pictures of six shapes",
    write=lambda data: write_shapes(data, train=240, val=40, side=96),
    photos=_of_each_class,
    settings=_nothing,
    figures={"val/acc@1": "accuracy"},
    next="to INT8 (with torchao), or with your own photos in train/<class>/ and val/<class>/:\n"
    "  python -m lightning_zoo quantize demo_classification\n"
    "  python -m lightning_zoo fit --recipe finetune_resnet18 --data.root my_data/",
)
DETECTION = Demo(
    data="scenes of four shapes with their boxes, in COCO's layout",
    write=lambda data: write_scenes(data, train=360, val=50),
    photos=_scenes,
    settings=_nothing,
    figures={"val/box_map50": "box AP50"},
    next=COCO_NEXT + "fit --recipe fasterrcnn_r50_fpn --data.root data/coco",
)
INSTANCES = Demo(
    data="scenes of four shapes with their masks, in COCO's layout",
    write=lambda data: write_scenes(data, train=360, val=50),
    photos=_scenes,
    settings=_nothing,
    figures={"val/box_map50": "box AP50", "val/mask_map50": "mask AP50"},
    next=COCO_NEXT + "fit --recipe maskrcnn_r50_fpn --data.root data/coco",
)
KEYPOINTS = Demo(
    data="kites with four keypoints each, in COCO's layout",
    write=lambda data: write_scenes(data, train=240, val=50, kites=True),
    photos=_scenes,
    settings=_kite,
    figures={"val/box_map50": "box AP50", "val/kp_map50": "keypoint AP50"},
    next=COCO_NEXT + "fit --recipe keypointrcnn_r50_fpn --data.root data/coco",
)
SEGMENTATION = Demo(
    data="scenes of four shapes, with the class of every pixel in masks/",
    write=lambda data: write_masks(data, train=360, val=50),
    photos=_images,
    settings=_nothing,
    figures={"val/miou": "mean IoU", "val/pixel_acc": "pixel accuracy"},
    next="with COCO in data/coco (python scripts/prepare_coco.py):\n"
    "  python -m lightning_zoo fit --recipe fcn_r50 --data.root data/coco",
)
VIDEO = Demo(
    data="videos of six motions, encoded as mp4",
    write=lambda data: write_moving(data, train=60, val=12),
    photos=_of_each_class,
    settings=_nothing,
    figures={"val/acc@1": "accuracy of videos", "val/clip_acc@1": "of clips"},
    next="with Kinetics in data/kinetics400 (python scripts/prepare_kinetics.py):\n"
    "  python -m lightning_zoo fit --recipe r3d_18 --data.root data/kinetics400",
)
DEMOS = {
    "classification": CLASSIFICATION,
    "detection": DETECTION,
    "instances": INSTANCES,
    "keypoints": KEYPOINTS,
    "segmentation": SEGMENTATION,
    "video": VIDEO,
}


def demo(task: str = "instances", *, out: str | Path = "runs") -> FitResult:
    """Make data on the spot, train on it, draw predictions, and say what to do next.

    Args:
        task: ``classification``, ``detection``, ``instances``, ``keypoints``, ``segmentation`` or
            ``video``.
        out: Folder of the run folders; the data goes to its ``demo_data/``.
    """
    if task not in DEMOS:
        raise unknown("demo", task, DEMOS)
    chosen = DEMOS[task]
    start = time.monotonic()
    data = Path(out) / "demo_data" / task
    print(f"data     {data}: {chosen.data}, made on the spot", flush=True)  # noqa: T201
    shutil.rmtree(data, ignore_errors=True)
    chosen.write(data)
    result = fit(f"demo_{task}", {"data.root": str(data), **chosen.settings(data)}, out=out)
    pictures = result.run / "predictions"
    predict(result.run, chosen.photos(data), out=pictures)
    took = time.monotonic() - start
    figures = ", ".join(f"{n} {result.metrics[k]:.1f} %" for k, n in chosen.figures.items())
    print(  # noqa: T201
        f"\n{figures} after {took:.0f} s; pictures: {pictures / 'grid.png'}\n"
        f"next, {chosen.next}\n"
        "  python -m lightning_zoo recipes ls     every recipe"
    )
    return result
