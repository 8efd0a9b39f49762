"""What a check found: as text for people, as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lightning_zoo.batch import counted
from lightning_zoo.formats.index import DataIndex, Problem, Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 3  # of each kind of problem in the text
CLASS_ROWS = 12  # of the table; of more classes the commonest and the rarest are shown
WIDEST = 160  # characters of an example
# what to try first for a task and a target
MODELS = {
    "classification": "resnet18",
    "segmentation": "lraspp_mobilenet_v3_large",
    "video": "mc3_18",
    "boxes": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "masks": "maskrcnn_resnet50_fpn",
    "keypoints": "keypointrcnn_resnet50_fpn",
}


@dataclass(frozen=True)
class CheckReport:
    """What was found in a data set.

    Attributes:
        index: The data.
        problems: All findings, the worst first.
        summary: Figures: images and objects of each split and class, sizes, balance.
    """

    index: DataIndex
    problems: tuple[Problem, ...]
    summary: dict[str, Any]

    @property
    def worst(self) -> Severity | None:
        """The worst severity among the problems, None where there are none."""
        return self.problems[0].severity if self.problems else None

    def count(self, severity: Severity) -> int:
        """Return the number of problems of a severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def status(self, *, strict: bool = False) -> int:
        """Return the exit status: 1 at errors, with ``strict`` at warnings too, else 0."""
        bad = ("error", "warning") if strict else ("error",)
        return int(self.worst in bad)

    @property
    def next_command(self) -> str:
        """What to do now."""
        zoo = "python -m lightning_zoo"
        root = _quoted(str(self.index.root))
        if self.worst == "error":
            return f"mend the errors, then: {zoo} data check {root}"
        return f"{zoo} finetune --model {model_for(self.index)} --data {root}"

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return {
            "root": str(self.index.root),
            "decisions": list(self.index.decisions),
            "summary": self.summary,
            "problems": [asdict(problem) for problem in self.problems],
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "worst": self.worst,
            "next": self.next_command,
        }

    def text(self) -> str:
        """Return the report for people: decisions, figures, findings by kind, and what is next."""
        parts = [self._head(), self._classes(), *self._kinds(), self._verdict()]
        return "\n\n".join(filter(None, parts))

    def _head(self) -> str:
        index, summary = self.index, self.summary
        task = f"{index.task} of {summary['target']}" if "target" in summary else index.task
        if index.multilabel:
            task += " with several labels each"
        lines = [f"{index.root}: {task}, {counted(len(index.classes), 'class', 'es')}"]
        lines += [f"  {decision}" for decision in index.decisions]
        noun = "video" if index.task == "video" else "image"
        for split, found in summary["splits"].items():
            line = f"{split:<6}{counted(found['items'], noun)}"
            if "objects" in found:
                line += f", {counted(found['objects'], 'object')}"
                line += f", {counted(found['crowds'], 'crowd')}" if found["crowds"] else ""
                if found["without_objects"]:
                    line += f", {counted(found['without_objects'], 'image')} without objects"
            lines.append(line)
        if summary["width"]:
            lines.append(
                f"sizes {_range(summary['width'])} by {_range(summary['height'])} pixels, width / "
                f"height {_range(summary['aspect_ratio'])} (least, median, most)"
            )
        if side := summary.get("box_side"):
            lines.append(
                f"boxes {_range(side)} pixels a side, {side['small']:.0%} small (below 32), "
                f"{side['large']:.0%} large (96 and more); {_range(summary['objects_per_image'])} "
                "objects an image"
            )
        if seconds := summary.get("seconds"):
            lines.append(f"length {_range(seconds)} seconds, {_range(summary['frames'])} frames")
        return "\n".join(lines)

    def _classes(self) -> str:
        splits = {s: found["classes"] for s, found in self.summary["splits"].items()}
        totals = {name: sum(of[name] for of in splits.values()) for name in self.index.classes}
        order = sorted((name for name in totals if totals[name]), key=lambda n: -totals[n])
        half = CLASS_ROWS // 2
        left_out = len(order) - 2 * half if len(order) > CLASS_ROWS else 0
        shown = [*order[:half], *order[-half:]] if left_out else order
        width = min(max(len("class"), *map(len, shown)), 40) if shown else 5
        columns = [*splits, "all", "share"] if len(splits) > 1 else [*splits, "share"]
        lines = [f"{'class':<{width}}" + "".join(f"{name:>9}" for name in columns)]
        everything = sum(totals.values()) or 1
        for place, name in enumerate(shown):
            if left_out and place == half:
                lines.append(f"... {counted(left_out, 'class', 'es')} between")
            row = [of[name] for of in splits.values()]
            row += [totals[name]] if len(splits) > 1 else []
            short = name if len(name) <= width else f"{name[: width - 1]}…"
            numbers = "".join(f"{value:>9}" for value in row)
            lines.append(f"{short:<{width}}{numbers}{totals[name] / everything:>9.1%}")
        if unused := len(totals) - len(order):
            lines.append(f"never: {counted(unused, 'class', 'es')}")
        lines[0] += f"   ({self.summary['counted']})"
        return "\n".join(lines)

    def _kinds(self) -> list[str]:
        groups: dict[tuple[Severity, str], list[Problem]] = {}
        for problem in self.problems:
            groups.setdefault((problem.severity, problem.kind), []).append(problem)
        texts = []
        for (severity, kind), group in groups.items():
            lines = [f"{severity}: {kind} ({len(group)})"]
            lines += [f"  {_short(f'{p.where}: {p.what}')}" for p in group[:EXAMPLES]]
            if len(group) > EXAMPLES:
                lines.append(f"  and {len(group) - EXAMPLES} more (--json names them all)")
            lines.append(f"  fix: {group[0].fix}")
            texts.append("\n".join(lines))
        return texts

    def _verdict(self) -> str:
        if not self.problems:
            return f"nothing found; next: {self.next_command}"
        found = [counted(n, word) for word in SEVERITIES if (n := self.count(word))]
        return f"{', '.join(found)}; next: {self.next_command}"


def model_for(index: DataIndex) -> str:
    """Return a model of the zoo that learns what the data shows, to begin with."""
    return MODELS[index.target if index.task == "detection" else index.task]


def _range(values: dict[str, float]) -> str:
    return f"{values['min']:g}, {values['median']:g}, {values['max']:g}"


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _quoted(path: str) -> str:
    return f"'{path}'" if " " in path else path
