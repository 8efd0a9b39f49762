"""Whether an exported file says the same as torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_zoo.export.subject import Subject

Found = dict[str, Tensor]
SCALE = 1e-3  # of the largest value: what differs more was computed by other rules
PIXELS = 0.1  # how far a box's side may lie off
SCORE = 2e-3
# Shares that may differ, where a rounding decides between two pixels, classes or boxes.
LABELS, MASKS, POINTS, OBJECTS = 1e-3, 1e-2, 0.05, 0.02
LIMIT = {"boxes": PIXELS, "scores": SCORE, "masks": MASKS, "keypoints": POINTS}


@dataclass(frozen=True)
class Row:
    """How one output compares over all inputs.

    Attributes:
        output: Its name.
        shape: Its shape for the last input.
        difference: The largest difference, in the unit that ``tolerance`` has.
        tolerance: How large it may be.
        unit: What is measured.
    """

    output: str
    shape: tuple[int, ...]
    difference: float
    tolerance: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough; what is no number never is."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Checked:
    """What a comparison found.

    Attributes:
        rows: One for each output.
        inputs: How many inputs were compared.
        found: Detections over all inputs; None of networks that are no detectors.
    """

    rows: tuple[Row, ...]
    inputs: int
    found: int | None = None

    @property
    def passed(self) -> bool:
        """Whether all outputs agree, and there was something to agree on."""
        return self.found != 0 and all(row.passed for row in self.rows)

    def table(self) -> str:
        """Return the rows as text, with a sentence below."""
        lines = [f"{'output':<17} {'shape':<20} {'difference':>11} {'tolerance':>10}  of"]
        for row in self.rows:
            shape = " x ".join(map(str, row.shape))
            mark = "" if row.passed else "   DIFFERS"
            lines.append(
                f"{row.output:<17} {shape:<20} {row.difference:>11.2g} {row.tolerance:>10.2g}  "
                f"{row.unit}{mark}"
            )
        what = f"on {self.inputs} inputs"
        if self.found is not None:
            what += f" with {self.found} detections"
        if self.found == 0:
            lines.append(
                f"not proven: nothing was found {what}; name photos with objects: --images DIR"
            )
        else:
            verdict = "the file agrees with torch" if self.passed else "the file DIFFERS from torch"
            lines.append(f"{verdict} {what}")
        return "\n".join(lines)


def check(
    subject: Subject,
    network: Callable[[Tensor], Found],
    *,
    free: bool = True,
    samples: Sequence[Tensor] = (),
) -> Checked:
    """Compare a file with torch on random pixels and on samples.

    Args:
        subject: What was exported.
        network: The file, read by :func:`lightning_zoo.export.load`.
        free: Whether height and width may be any.
        samples: Further images ``(3, H, W)`` (clips), uint8.
    """
    inputs = _inputs(subject, free=free)
    is_detector = subject.task == "detection"
    fits = [one for one in samples if free or one.shape[-2:] == subject.size]
    inputs += [one if is_detector else one[None] for one in fits]
    pairs = [(subject.eager(pixels), network(pixels)) for pixels in inputs]
    if is_detector:
        return _detections(pairs)
    rows = []
    for name in pairs[0][0]:
        both = [(torch_says[name], file_says[name]) for torch_says, file_says in pairs]
        if name == "labels":
            share = max(_differing(a, b) for a, b in both)
            rows.append(Row(name, tuple(both[-1][1].shape), share, LABELS, "share of pixels"))
        else:
            off = max(_off(a, b) for a, b in both)
            rows.append(Row(name, tuple(both[-1][1].shape), off, SCALE, "largest value"))
    return Checked(tuple(rows), len(inputs))


def _inputs(subject: Subject, *, free: bool) -> list[Tensor]:
    """Return random pixels: noise, and noise in blocks, which looks more like objects."""
    generator = torch.Generator().manual_seed(0)

    def pixels(batch: int, height: int, width: int, block: int) -> Tensor:
        like = subject.example((height, width), batch=batch)
        small = [*like.shape[:-2], -(-height // block), -(-width // block)]
        noise = torch.randint(0, 256, small, dtype=torch.uint8, generator=generator)
        large = noise.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)
        return large[..., :height, :width].contiguous()

    height, width = subject.size
    if not free:
        return [pixels(1, height, width, 1), pixels(3, height, width, 16)]
    return [
        pixels(1, height, width, 1),
        pixels(3, height + 32, width, 16),
        pixels(2, height + 7, width + 45, 40),
    ]


def _off(a: Tensor, b: Tensor) -> float:
    """Return the largest difference as a share of the largest value; inf of other shapes."""
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))


def _differing(a: Tensor, b: Tensor) -> float:
    return float((a != b).float().mean()) if a.shape == b.shape else float("inf")


def _detections(pairs: Sequence[tuple[Found, Found]]) -> Checked:
    """Compare detections one by one; two of nearly the same score may stand in another order."""
    worst: dict[str, float] = {}
    total = lone = 0
    for torch_says, file_says in pairs:
        mine, theirs = _match(torch_says, file_says)
        total += len(torch_says["scores"])
        lone += len(torch_says["scores"]) + len(file_says["scores"]) - 2 * len(mine)
        for name in torch_says:
            if name == "labels":
                continue
            a, b = torch_says[name][mine], file_says[name][theirs]
            worst[name] = max(worst.get(name, 0.0), _of_objects(name, a, b))
    last = pairs[-1][1]
    units = {
        "boxes": "pixels", "scores": "score", "masks": "mean of a mask",
        "keypoints": "share of points", "keypoints_scores": "largest value",
    }  # fmt: skip
    rows = [
        Row(name, tuple(last[name].shape), value, LIMIT.get(name, SCALE), units[name])
        for name, value in worst.items()
    ]
    share = lone / max(total, 1)
    rows.insert(1, Row("labels", tuple(last["labels"].shape), share, OBJECTS, "without a partner"))
    return Checked(tuple(rows), len(pairs), total)


def _match(a: Found, b: Found) -> tuple[list[int], list[int]]:
    """Return positions of detections that are the same: label, box and score, the nearest first."""
    if not len(a["scores"]) or not len(b["scores"]):
        return [], []
    apart = (a["boxes"][:, None] - b["boxes"]).abs().amax(dim=2)
    score = (a["scores"][:, None] - b["scores"]).abs()
    same = (a["labels"][:, None] == b["labels"]) & (apart <= PIXELS) & (score <= SCORE)
    cost = torch.where(same, apart + score, torch.inf)
    mine, theirs = [], []
    for i in range(len(cost)):
        j = int(cost[i].argmin())
        if cost[i, j] < torch.inf:
            mine.append(i)
            theirs.append(j)
            cost[:, j] = torch.inf
    return mine, theirs


def _of_objects(name: str, a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    if name == "masks":
        return float((a - b).abs().mean(dim=(1, 2, 3)).max())
    if name == "keypoints":  # the hottest of thousands of pixels; of two alike either may win
        return float(((a - b).abs().amax(dim=2) > 1).float().mean())
    if name == "keypoints_scores":
        return _off(a, b)
    return float((a - b).abs().max())
