"""A tiny data set in COCO's layout: shapes and figures, drawn from their own annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_zoo.keypoints import COCO_PERSON
from lightning_zoo.transforms.masks import Masks, compress, pack

Mask = NDArray[np.uint8]
SHAPES = ("disc", "square", "triangle", "diamond")
FIGURE = "figure"
# the figure's keypoints in COCO's order, from 0 to 1 across and down its box; its left is our right
_POSE = np.array([
    (.50, .12), (.56, .09), (.44, .09), (.61, .12), (.39, .12), (.70, .30), (.30, .30), (.84, .42),
    (.16, .42), (.94, .55), (.06, .55), (.62, .58), (.38, .58), (.66, .77), (.34, .77), (.68, .96),
    (.32, .96),
])  # fmt: skip


def write_fake_coco(
    root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
) -> None:
    """Write ``train2017``, ``val2017`` and their instances and person keypoints.

    The last category of the instances is the figure, the one of the keypoints too. Masks are
    polygons, and run lengths of both kinds; the third image has a crowd, the sixth has no object.

    Args:
        root: Folder to fill; made if it is missing.
        classes: Number of categories of the instances.
        images: Images of each split.
        size: Longer side of an image in pixels.
        seed: Seed of the shapes.
    """
    names = [f"{SHAPES[c % 4]}{c // 4 or ''}" for c in range(classes - 1)] + [FIGURE]
    categories = [{"id": 2 + 3 * c, "name": name} for c, name in enumerate(names)]
    person = {
        "id": 1,
        "name": "person",
        "keypoints": list(COCO_PERSON.names),
        "skeleton": [[a + 1, b + 1] for a, b in COCO_PERSON.bones],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train2017", "val2017")):
        rng = np.random.default_rng((seed, number))
        listed: list[dict[str, Any]] = []
        instances: list[dict[str, Any]] = []
        persons: list[dict[str, Any]] = []
        for i in range(images):
            scene = _Scene(i, size, rng)
            if i % 8 != 5:
                scene.fill(names, rng, crowd=i % 8 == 2)
            image_id = 1000 * (number + 1) + 7 * i
            name = f"{image_id:012d}.jpg"
            scene.write(root / split / name)
            height, width = scene.pixels.shape[:2]
            listed.append({"id": image_id, "file_name": name, "height": height, "width": width})
            for kind, record in scene.records:
                record = {"id": 100 + len(instances), "image_id": image_id, **record}
                points = record.pop("keypoints", None)
                instances.append({**record, "category_id": categories[kind]["id"]})
                if points is not None:
                    labelled = sum(v > 0 for v in points[2::3])
                    persons.append({**record, "category_id": 1, "keypoints": points,
                                    "num_keypoints": labelled})  # fmt: skip
        for kind_name, records, known in (
            ("instances", instances, categories),
            ("person_keypoints", persons, [person]),
        ):
            content = {"images": listed, "annotations": records, "categories": known}
            path = root / "annotations" / f"{kind_name}_{split}.json"
            path.write_text(json.dumps(content), encoding="utf-8")


class _Scene:
    """One image on which objects are drawn beside one another."""

    def __init__(self, number: int, size: int, rng: np.random.Generator) -> None:
        short = max(16, size * (3 if number % 2 else 4) // 5)
        height, width = (short, size) if number % 3 else (size, short)
        tint = rng.integers(60, 120, 3)
        noise = rng.normal(0, 12, (height, width, 3))
        self.pixels = (tint + noise).clip(0, 255).astype(np.uint8)
        self.taken = np.zeros((height, width), np.bool_)
        self.records: list[tuple[int, dict[str, Any]]] = []

    def fill(self, names: list[str], rng: np.random.Generator, *, crowd: bool) -> None:
        """Draw a figure, up to three shapes and maybe a crowd of discs."""
        side = min(self.taken.shape)
        self._figure(len(names) - 1, int(side * rng.uniform(0.55, 0.7)), rng)
        for _ in range(int(rng.integers(1, 4)) if len(names) > 1 else 0):
            kind = int(rng.integers(len(names) - 1))
            self._shape(kind, names[kind], int(side * rng.uniform(0.25, 0.4)), rng)
        if crowd and len(names) > 1:
            self._crowd(int(side * 0.3), rng)

    def write(self, path: Path) -> None:
        """Write the image as JPEG."""
        import cv2

        path.parent.mkdir(parents=True, exist_ok=True)
        bgr = np.ascontiguousarray(self.pixels[..., ::-1])
        path.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())

    def _place(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return a free corner for a box, taking it; None where none was found."""
        rows, columns = self.taken.shape
        for _ in range(20):
            y = int(rng.integers(0, max(1, rows - height)))
            x = int(rng.integers(0, max(1, columns - width)))
            box = np.s_[y : y + height, x : x + width]
            if not self.taken[box].any() and y + height <= rows and x + width <= columns:
                self.taken[box] = True
                return y, x
        return None

    def _shape(self, kind: int, name: str, side: int, rng: np.random.Generator) -> None:
        corner = self._place(side, side, rng)
        if corner is None:
            return
        y, x = corner
        outlines = {
            "disc": [(np.cos(a) / 2 + 0.5, np.sin(a) / 2 + 0.5)
                     for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)],
            "square": [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)],
            "triangle": [(0.5, 0), (1, 1), (0, 1)],
            "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
        }  # fmt: skip
        outline = outlines[name.rstrip("0123456789")]
        polygon = [round(float(v), 2) for a, b in outline for v in (x + a * side, y + b * side)]
        height, width = self.taken.shape
        (mask,) = Masks([pack([polygon], height, width)], height, width).decode()
        segmentation: Any = [polygon]
        if name.startswith("diamond"):
            segmentation = _compressed(mask)
        self._draw(kind, mask, segmentation, _colour(kind))

    def _crowd(self, side: int, rng: np.random.Generator) -> None:
        import cv2

        corner = self._place(side, side, rng)
        if corner is None:
            return
        mask = np.zeros(self.taken.shape, np.uint8)
        for a, b in ((0.2, 0.2), (0.75, 0.25), (0.3, 0.75), (0.8, 0.8)):
            at = (corner[1] + int(a * side), corner[0] + int(b * side))
            cv2.circle(mask, at, max(1, side // 8), 1, -1)
        runs = {"size": [*mask.shape], "counts": _runs(mask)}
        self._draw(0, mask, runs, _colour(0), iscrowd=1)

    def _figure(self, kind: int, height: int, rng: np.random.Generator) -> None:
        import cv2

        width = max(8, height * 3 // 4)
        corner = self._place(height, width, rng)
        if corner is None:
            return
        y, x = corner
        points = _POSE * (width, height) + (x, y)
        points[5:] += rng.uniform(-0.02, 0.02, (12, 2)) * height
        points = points.clip((x, y), (x + width - 1, y + height - 1)).round(1)
        mask = np.zeros(self.taken.shape, np.uint8)
        whole = points.astype(int)
        thick = max(1, height // 12)
        for a, b in COCO_PERSON.bones:
            if min(a, b) > 4:
                cv2.line(mask, whole[a].tolist(), whole[b].tolist(), 1, thick)
        cv2.fillConvexPoly(mask, whole[[5, 6, 12, 11]], 1)
        centre = (int(x + width / 2), int(y + height * 0.13))
        cv2.circle(mask, centre, max(2, height // 8), 1, -1)
        seen = np.full(17, 2)
        seen[rng.integers(5, 17)] = 1
        if rng.random() < 0.3:
            seen[3] = 0
        triples = [
            float(v) if s else 0.0
            for (px, py), s in zip(points.tolist(), seen.tolist(), strict=True)
            for v in (px, py, s)
        ]
        self._draw(kind, mask, _compressed(mask), (236, 206, 178), keypoints=triples)
        # the left side of the body is red and the right side blue, so that they can be told apart
        for i, colour in ((5, (220, 40, 40)), (6, (40, 60, 220))):
            for j in range(i, 17, 2):
                cv2.circle(self.pixels, whole[j].tolist(), max(1, height // 20), colour, -1)

    def _draw(
        self,
        kind: int,
        mask: Mask,
        segmentation: Any,
        colour: tuple[int, int, int],
        **more: Any,
    ) -> None:
        """Paint a mask and write down its record."""
        ys, xs = np.nonzero(mask)
        x0, y0 = int(xs.min()), int(ys.min())
        box = [x0, y0, int(xs.max()) + 1 - x0, int(ys.max()) + 1 - y0]
        self.pixels[mask == 1] = colour
        record = {"bbox": [float(n) for n in box], "area": float(mask.sum()), "iscrowd": 0}
        self.records.append((kind, {**record, "segmentation": segmentation, **more}))


def _colour(kind: int) -> tuple[int, int, int]:
    hue = [(230, 80, 70), (80, 200, 90), (250, 210, 60), (90, 130, 250), (210, 90, 220)][kind % 5]
    return hue


def _runs(mask: Mask) -> list[int]:
    """Return the run lengths of a mask (H, W) down its columns, zeros first."""
    flat = np.concatenate(([0], mask.T.ravel(), [2]))
    ends = np.flatnonzero(np.diff(flat))
    starts = np.concatenate(([0], ends[:-1]))
    runs: list[int] = (ends - starts).tolist()
    return runs


def _compressed(mask: Mask) -> dict[str, Any]:
    return {"size": [*mask.shape], "counts": compress(_runs(mask)).decode("ascii")}
