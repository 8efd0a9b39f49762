from __future__ import annotations

import shutil
import time
from pathlib import Path

from lightning_zoo.engine.fit import FitResult, fit
from lightning_zoo.engine.predict import predict
from lightning_zoo.engine.shapes import write_shapes
from lightning_zoo.errors import unknown

TASKS = ("classification",)
TRAIN_IMAGES, VAL_IMAGES = 240, 40  # of each class
SIDE = 96  # pixels


def demo(task: str = "classification", *, out: str | Path = "runs") -> FitResult:
    """Make data on the spot, train on it, draw predictions, and say what to do next.

    Args:
        task: Which task to show.
        out: Folder of the run folders; the data goes to its ``demo_data/``.
    """
    if task not in TASKS:
        raise unknown("demo", task, TASKS)
    start = time.monotonic()
    data = Path(out) / "demo_data" / task
    print(f"data     {data}: pictures of six shapes, made on the spot")  # noqa: T201
    shutil.rmtree(data, ignore_errors=True)
    write_shapes(data, train=TRAIN_IMAGES, val=VAL_IMAGES, side=SIDE)
    result = fit(f"demo_{task}", {"data.root": str(data)}, out=out)
    pictures = result.run / "predictions"
    folders = [sorted(folder.iterdir()) for folder in sorted((data / "val").iterdir())]
    photos = [folder[i] for i in range(4) for folder in folders]  # a column of the grid each
    predict(result.run, photos, out=pictures)
    took = time.monotonic() - start
    print(  # noqa: T201
        f"\naccuracy {result.metrics['val/acc@1']:.1f} % after {took:.0f} s; "
        f"pictures: {pictures / 'grid.png'}\n"
        "next, with your own photos in train/<class>/ and val/<class>/:\n"
        "  python -m lightning_zoo fit --recipe finetune_resnet18 --data.root my_data/\n"
        "  python -m lightning_zoo recipes ls     every recipe"
    )
    return result
