"""Objects drawn into their image: boxes, names, masks and skeletons, and the truth beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_zoo.drawing.arrays import ClassNames, as_array, class_name, decode_mask
from lightning_zoo.drawing.grid import INK, PAPER, Tile, fit_text, get_font
from lightning_zoo.drawing.panels import TILE_WIDTH, panel_factor, resized, side_by_side
from lightning_zoo.keypoints import Skeleton

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

# Okabe and Ito's colours, which people with any kind of colour blindness tell apart
# (https://jfly.uni-koeln.de/color/); more labels take them again, lighter, darker and greyer.
HUES: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (0, 114, 178),
    (204, 121, 167),
)  # fmt: skip
# Bones of the left side, of the right side, and between them.
LEFT, RIGHT_SIDE, MIDDLE = (230, 159, 0), (86, 180, 233), (240, 240, 240)
MASK_OPACITY = 0.42
# Larger pictures are drawn at this length of their longer side: nobody looks at more pixels.
MOST_PIXELS = 2048
MOST_OBJECTS, FEW_OBJECTS = 100, 12


def label_colour(label: int) -> Colour:
    """Return the colour of a label, the same in every picture."""
    place = max(label - 1, 0)
    red, green, blue = HUES[place % len(HUES)]
    match place // len(HUES) % 4:
        case 1:
            return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2
        case 2:
            return red * 3 // 5, green * 3 // 5, blue * 3 // 5
        case 3:
            return (red + 128) // 2, (green + 128) // 2, (blue + 128) // 2
    return red, green, blue


def draw_objects(
    image: NDArray[np.uint8],
    boxes: Any,
    labels: Any,
    class_names: ClassNames,
    *,
    scores: Any = None,
    masks: Any = None,
    keypoints: Any = None,
    skeleton: Skeleton | None = None,
    iscrowd: Any = None,
    most_pixels: int | None = MOST_PIXELS,
) -> NDArray[np.uint8]:
    """Return the image with the objects drawn into it.

    Arrays may be numpy's or torch's. Of more than 100 objects the best are drawn, the smallest on
    top; where there is no room for an object's name beside others, its colour has to say it.

    Args:
        image: uint8 RGB ``(H, W, 3)``, or grey ``(H, W)``.
        boxes: ``(N, 4)`` ``x1, y1, x2, y2`` in pixels.
        labels: ``(N,)`` whole numbers.
        class_names: Name of each label, by position or as a mapping.
        scores: ``(N,)`` in [0, 1]; None for truth.
        masks: ``(N, 1, H, W)`` or ``(N, H, W)``: probabilities, of which those above 0.5 count, or
            0 and 1; or N run-length encoded masks.
        keypoints: ``(N, K, 3)`` ``x, y, visibility``; those of visibility 0 are not drawn.
        skeleton: Its bones join the keypoints; None draws points alone.
        iscrowd: ``(N,)``; crowds have dashed boxes and hatched masks.
        most_pixels: Images whose longer side is longer are reduced to it; None keeps the size.
    """
    canvas = _Canvas(_rgb(image), most_pixels)
    objects = _objects(canvas, boxes, labels, class_names, scores, masks, keypoints, iscrowd)
    objects.sort(key=lambda one: -_area(one.box))
    canvas.draw_masks(objects)
    for one in objects:
        canvas.draw_box(one)
    for one in objects:
        canvas.draw_keypoints(one, skeleton)
    canvas.draw_names(objects)
    return np.asarray(canvas.picture)


def detection_tile(
    image: NDArray[np.uint8],
    prediction: Mapping[str, Any],
    class_names: ClassNames,
    truth: Mapping[str, Any] | None,
    *,
    skeleton: Skeleton | None = None,
    score_threshold: float = 0.5,
    keypoint_threshold: float = 0.0,
    width: int = TILE_WIDTH,
) -> Tile:
    """Return the image with what was found, and beside it with what is true where that is known.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        prediction: ``boxes, labels, scores`` and maybe ``masks, keypoints, keypoints_scores``.
        class_names: Name of each label, by position or as a mapping.
        truth: ``boxes, labels`` and maybe ``masks, keypoints, iscrowd``; None where nobody knows.
        skeleton: Its bones join the keypoints.
        score_threshold: Objects below it are not drawn.
        keypoint_threshold: Keypoints whose score (a logit) is not above it are not drawn.
        width: Width of the whole picture in pixels.
    """
    kept = as_array(prediction["scores"]) >= score_threshold
    found = {name: _rows(prediction.get(name), kept) for name in (*_DRAWN, "scores")}
    if prediction.get("keypoints_scores") is not None and found["keypoints"] is not None:
        sure = as_array(_rows(prediction["keypoints_scores"], kept)) > keypoint_threshold
        found["keypoints"] = as_array(found["keypoints"]).copy()
        found["keypoints"][..., 2] *= sure
    pixels = _rgb(image)
    factor = panel_factor(pixels.size, 1 if truth is None else 2, width)
    small = resized(pixels, factor)

    def draw(objects: Mapping[str, Any]) -> NDArray[np.uint8]:
        return draw_objects(
            small,
            _scaled(objects["boxes"], factor, 4),
            objects["labels"],
            class_names,
            scores=objects.get("scores"),
            masks=objects.get("masks"),
            keypoints=_scaled(objects.get("keypoints"), factor, 2),
            skeleton=skeleton,
            iscrowd=objects.get("iscrowd"),
        )

    count = int(kept.sum())
    if truth is None:
        return Tile(side_by_side([draw(found)], [], width), [f"{count} found"], wide=True)
    panels = [draw(found), draw({name: truth.get(name) for name in (*_DRAWN, "iscrowd")})]
    crowd = truth.get("iscrowd")
    crowds = int((as_array(crowd) != 0).sum()) if crowd is not None else 0
    true = len(truth["labels"]) - crowds
    caption = f"{count} found, {true} true"
    if crowds:
        caption += f" and {crowds} crowd{'s' if crowds > 1 else ''}"
    return Tile(side_by_side(panels, ["found", "true"], width), [caption], wide=True)


_DRAWN = ("boxes", "labels", "masks", "keypoints")


@dataclass
class _Object:
    """One object in the pixels of the canvas."""

    box: Box
    colour: Colour
    name: str
    score: float | None
    mask: NDArray[np.bool_] | None
    keypoints: NDArray[np.float64] | None
    crowd: bool


def _rows(value: Any, kept: NDArray[np.bool_]) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [one for one, keep in zip(value, kept.tolist(), strict=True) if keep]
    return as_array(value)[kept]


def _scaled(values: Any, factor: float, columns: int) -> Any:
    if values is None:
        return None
    scaled = as_array(values).astype(np.float64)
    scaled[..., :columns] *= factor
    return scaled


def _rgb(image: NDArray[np.uint8]) -> Image.Image:
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    return Image.fromarray(image).convert("RGB")


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _overlap(a: Box, b: Box) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def _objects(
    canvas: _Canvas,
    boxes: Any,
    labels: Any,
    class_names: ClassNames,
    scores: Any,
    masks: Any,
    keypoints: Any,
    iscrowd: Any,
) -> list[_Object]:
    """Return the best objects whose boxes are numbers, in the pixels of the canvas."""
    box_rows = as_array(boxes).reshape(-1, 4).astype(np.float64) * canvas.factor
    label_rows = as_array(labels).astype(np.int64).tolist()
    values = np.ones(len(box_rows)) if scores is None else as_array(scores).astype(np.float64)
    points = None if keypoints is None else _scaled(keypoints, canvas.factor, 2)
    order = np.argsort(-values, kind="stable").tolist()
    found = []
    for i in [i for i in order if np.isfinite(box_rows[i]).all()][:MOST_OBJECTS]:
        x1, y1, x2, y2 = (float(v) for v in box_rows[i])
        found.append(
            _Object(
                box=(x1, y1, max(x1, x2), max(y1, y2)),
                colour=label_colour(label_rows[i]),
                name=class_name(class_names, label_rows[i]),
                score=None if scores is None else float(values[i]),
                mask=None if masks is None else canvas.fit_mask(decode_mask(masks, i)),
                keypoints=None if points is None else points[i],
                crowd=iscrowd is not None and bool(as_array(iscrowd)[i]),
            )
        )
    return found


class _Canvas:
    """A picture that grows object by object."""

    def __init__(self, image: Image.Image, most_pixels: int | None) -> None:
        self.factor = min(1.0, most_pixels / max(image.size)) if most_pixels else 1.0
        if self.factor < 1:
            image = Image.fromarray(resized(image, self.factor))
        self.picture = image
        longer = max(image.size)
        self.line = max(1, round(longer / 250))
        self.font_size = min(max(round(longer / 42), 12), 30)

    def fit_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        size = self.picture.size
        if mask.shape == size[::-1]:
            return mask
        how = Image.Resampling.BILINEAR
        scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, how)
        return np.asarray(scaled) > 127

    def draw_masks(self, objects: Sequence[_Object]) -> None:
        """Lay each object's colour over its mask, thinly, with an outline."""
        pixels = np.array(self.picture)
        for one in objects:
            if one.mask is not None and one.mask.any():
                self._lay(pixels, one.mask, one)
        self.picture = Image.fromarray(pixels)

    def _lay(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], one: _Object) -> None:
        ys, xs = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        top, bottom, left, right = ys[0], ys[-1] + 1, xs[0], xs[-1] + 1
        mask = mask[top:bottom, left:right]
        inner = np.pad(mask, self.line)
        for _ in range(self.line):  # peel one pixel off every side
            peeled = inner.copy()
            peeled[1:] &= inner[:-1]
            peeled[:-1] &= inner[1:]
            peeled[:, 1:] &= inner[:, :-1]
            peeled[:, :-1] &= inner[:, 1:]
            inner = peeled
        edge = mask & ~inner[self.line : -self.line, self.line : -self.line]
        surface = mask & ~edge
        if one.crowd:  # stripes
            y, x = np.mgrid[top:bottom, left:right]
            surface &= (x + y) % (6 * self.line) < 2 * self.line
        part = pixels[top:bottom, left:right]
        colour = np.array(one.colour)
        part[surface] = part[surface] + (colour - part[surface]) * MASK_OPACITY
        part[edge] = colour + (255 - colour) * 0.3

    def _visible(self, box: Box) -> tuple[int, int, int, int]:
        """Return the box in whole pixels of the picture, at least one of them."""
        width, height = self.picture.size
        left, right = (min(max(round(x), 0), width - 1) for x in (box[0], box[2] - 1))
        top, bottom = (min(max(round(y), 0), height - 1) for y in (box[1], box[3] - 1))
        return left, top, max(left, right), max(top, bottom)

    def draw_box(self, one: _Object) -> None:
        """Draw the box, inside its own edge, with a dark hair line around it."""
        draw = ImageDraw.Draw(self.picture)
        left, top, right, bottom = self._visible(one.box)
        line = min(self.line, max(1, min(right - left, bottom - top) // 6))
        if one.crowd:
            self._dash(draw, (left, top, right, bottom), one.colour, line)
            return
        dark = tuple(value // 4 for value in one.colour)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=dark)
        draw.rectangle((left, top, right, bottom), outline=one.colour, width=line)

    def _dash(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: Colour, line: int
    ) -> None:
        left, top, right, bottom = box
        dash = 5 * line
        for start in range(left, right + 1, 2 * dash):
            end = min(start + dash, right)
            draw.rectangle((start, top, end, top + line - 1), fill=colour)
            draw.rectangle((start, bottom - line + 1, end, bottom), fill=colour)
        for start in range(top, bottom + 1, 2 * dash):
            end = min(start + dash, bottom)
            draw.rectangle((left, start, left + line - 1, end), fill=colour)
            draw.rectangle((right - line + 1, start, right, end), fill=colour)

    def draw_keypoints(self, one: _Object, skeleton: Skeleton | None) -> None:
        """Draw bones and points, smoothly: four times as large and reduced again."""
        if one.keypoints is None:
            return
        seen = (one.keypoints[:, 2] > 0) & np.isfinite(one.keypoints[:, :2]).all(axis=1)
        if not seen.any():
            return
        height = max(one.box[3] - one.box[1], one.box[2] - one.box[0])
        bone = min(max(height / 60, 1.2), 1.5 * self.line + 1)
        point = 1.35 * bone
        inside = one.keypoints[seen, :2]
        margin = 3 * point
        left, top = (max(0, math.floor(v)) for v in inside.min(axis=0) - margin)
        right, bottom = (
            min(n, math.ceil(v))
            for v, n in zip(inside.max(axis=0) + margin, self.picture.size, strict=True)
        )
        if left >= right or top >= bottom:
            return
        fine = 4
        layer = Image.new("RGBA", ((right - left) * fine, (bottom - top) * fine))
        draw = ImageDraw.Draw(layer)
        at = [((x - left) * fine, (y - top) * fine) for x, y in one.keypoints[:, :2].tolist()]
        sides = _sides(skeleton)
        bones = [b for b in (skeleton.bones if skeleton else ()) if seen[b[0]] and seen[b[1]]]
        for extra in (0.8, 0.0):  # first all that is dark around them
            for a, b in bones:
                colour = INK if extra else sides.get((a, b), one.colour)
                width = max(1, round((bone + 2 * extra) * fine))
                draw.line((*at[a], *at[b]), fill=(*colour, 255), width=width)
        for i in np.nonzero(seen)[0].tolist():
            x, y = at[i]
            for radius, colour in (
                ((point + 0.8) * fine, INK),
                (point * fine, sides.get((i, i), one.colour)),
            ):
                circle = (x - radius, y - radius, x + radius, y + radius)
                draw.ellipse(circle, fill=(*colour, 255))
        layer = layer.reduce(fine)
        self.picture.paste(layer.convert("RGB"), (left, top), layer.getchannel("A"))

    def draw_names(self, objects: Sequence[_Object]) -> None:
        """Draw the names, best first, each where it hides the least.

        Among many objects, small ones are named only where no other of their class is.
        """
        size = self.picture.size
        draw = ImageDraw.Draw(self.picture)
        height = self.font_size + self.font_size // 3
        if height > size[1] // 2:
            return
        boxes = [self._visible(one.box) for one in objects]
        areas = [_area(box) for box in boxes]
        taken: list[Box] = []
        named: set[str] = set()
        for i in sorted(range(len(objects)), key=lambda i: (-(objects[i].score or 0.0), -areas[i])):
            one = objects[i]
            text = self._text(one, size[0])
            font = get_font(self.font_size, text)
            width = math.ceil(font.getlength(text)) + self.font_size // 2
            if width > size[0]:
                continue
            if len(objects) > FEW_OBJECTS and areas[i] < 2 * width * height and one.name in named:
                continue
            place = self._place(boxes[i], (width, height), taken, boxes)
            if place is None:
                continue
            named.add(one.name)
            taken.append(place)
            draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=one.colour)
            red, green, blue = one.colour
            ink = INK if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else PAPER
            middle = (place[0] + self.font_size // 4, (place[1] + place[3]) / 2)
            draw.text(middle, text, fill=ink, font=font, anchor="lm")

    def _text(self, one: _Object, width: int) -> str:
        """Return name and score, the name shortened where it would fill half of the picture."""
        score = "" if one.score is None else f" {100 * one.score:.0f} %"
        room = max(width // 2, 6 * self.font_size) - get_font(self.font_size).getlength(score)
        return fit_text(one.name, math.floor(room), self.font_size) + score

    def _place(
        self, box: Box, plate: tuple[int, int], taken: Sequence[Box], boxes: Sequence[Box]
    ) -> Box | None:
        """Return where a plate hides no other plate and the least of any object, or None."""
        width, height = plate
        picture_width, picture_height = self.picture.size
        left, top, right, bottom = box
        candidates = [
            (left, top - height),
            (left, top),
            (left, bottom + 1),
            (right + 1 - width, top - height),
            (right + 1 - width, bottom + 1),
            (right + 1, top),
            (left - width, top),
            (right + 1 - width, top),
            (left, bottom + 1 - height),
        ]
        best: tuple[float, Box] | None = None
        for rank, (x, y) in enumerate(candidates):
            x = min(max(x, 0), picture_width - width)
            if y < 0 or y + height > picture_height:
                continue
            at = (x, y, x + width, y + height)
            if any(_overlap(at, other) > 0.05 * width * height for other in taken):
                continue
            # of the object that suffers most, the share that the plate would hide
            hidden = max(_overlap(at, other) / max(_area(other), 1.0) for other in boxes)
            if hidden > 0.3:
                continue
            cost = hidden + 0.01 * rank
            if best is None or cost < best[0]:
                best = (cost, at)
        return best[1] if best else None


def _sides(skeleton: Skeleton | None) -> dict[tuple[int, int], Colour]:
    """Return the colours of bones and, as pairs of twice the same, of points, by their side."""
    if skeleton is None or not skeleton.flip_pairs:
        return {}
    left = {a for a, _ in skeleton.flip_pairs}
    right = {b for _, b in skeleton.flip_pairs}
    colours = {}
    for a, b in (*skeleton.bones, *((i, i) for i in range(len(skeleton)))):
        ends = {a, b}
        # the middle, such as the nose, belongs to the side of the other end
        if ends & left and not ends & right:
            colours[a, b] = LEFT
        elif ends & right and not ends & left:
            colours[a, b] = RIGHT_SIDE
        else:
            colours[a, b] = MIDDLE
    return colours
