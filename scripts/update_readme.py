"""Draw the README's tables of models and recipes from the registry and the recipe files.

    python scripts/update_readme.py            # rewrite what stands between the markers
    python scripts/update_readme.py --check    # change nothing; exit 1 where the README differs

Each table stands between two comments, ``<!-- models:begin -->`` and ``<!-- models:end -->`` (the
same with ``recipes``); the rest of the file is left alone.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lightning_zoo.errors import ZooError
from lightning_zoo.models.registry import ModelEntry, registry
from lightning_zoo.recipe import Recipe, list_recipes, recipe_files

ROOT = Path(__file__).resolve().parents[1]
NEW_README = """\
# lightning_zoo

The classic torchvision model zoo, trained and measured with PyTorch Lightning recipes.

## Models

<!-- models:begin -->
<!-- models:end -->

## Recipes

<!-- recipes:begin -->
<!-- recipes:end -->
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Return a Markdown table; the columns ``right`` are aligned to the right."""
    rule = ["--:" if i in set(right) else "---" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def figure(value: float | None, digits: int) -> str:
    """Return a published figure in per cent, as its table prints it."""
    return "-" if value is None else f"{value:.{digits}f}"


@functools.cache
def recipes() -> dict[str, Recipe]:
    """Return every recipe by name."""
    return {recipe.name: recipe for recipe in list_recipes()}


def link(name: str) -> str:
    """Return a recipe's name as a link to its file."""
    path = recipe_files()[name]
    return f"[{name}](recipes/{path.parent.name}/{path.name})"


TASK_HEADS = {
    "classification": "Image classification, figures on ImageNet",
    "detection": "Detection, instance segmentation and keypoints, figures on COCO",
    "quantization": "INT8 image classification, figures on ImageNet (`quantize=True`)",
    "segmentation": "Semantic segmentation, figures on the VOC classes of COCO",
    "video": "Video classification, figures on Kinetics-400",
}
METRICS = {
    "classification": {"acc@1": "acc@1", "acc@5": "acc@5"},
    "detection": {"box_map": "box AP", "mask_map": "mask AP", "kp_map": "keypoint AP"},
    "quantization": {"acc@1": "acc@1", "acc@5": "acc@5"},
    "segmentation": {"miou": "mean IoU", "pixel_acc": "pixel accuracy"},
    "video": {"clip_acc@1": "clip acc@1", "clip_acc@5": "clip acc@5",
              "acc@1": "video acc@1", "acc@5": "video acc@5"},
}  # fmt: skip
DIGITS = {"classification": 3, "detection": 1, "quantization": 3, "segmentation": 1, "video": 2}


def models_table() -> str:
    """Return a table for each task: a row for each published file or each model without any."""
    tables = []
    for task in sorted({task for task, _ in registry()}):
        rows: list[list[str]] = []
        for entry in registry().values():
            rows += model_rows(entry) if entry.task == task else []
        head = ["model", "parameters", *METRICS[task].values(), "recipe", "weights"]
        right = [*range(1, 2 + len(METRICS[task]))]
        if task == "quantization":
            head[-2:-2] = ["MiB", "engine"]
            right.append(len(head) - 4)
        drawn = table(head, rows, right=right)
        tables.append(f"### {TASK_HEADS[task]}\n\n{drawn}")
    return "\n\n".join(tables)


def model_rows(entry: ModelEntry) -> list[list[str]]:
    """Return one model's rows; the recipe stands beside the weights that it states."""
    recipe = recipes().get(entry.recipe or "")
    stated = (recipe.config.get("reference") or {}).get("weights") if recipe else None
    recipe_link = link(recipe.name) if recipe else "-"
    digits = DIGITS[entry.task]
    rows = []
    for name, weights in entry.weights.items():
        engine = [figure(weights.file_size_mib, 1), weights.backend] if weights.backend else []
        rows.append(
            [
                f"`{entry.full_name}`",
                f"{entry.num_params / 1e6:.1f} M",
                *(figure(weights.metrics.get(m), digits) for m in METRICS[entry.task]),
                *engine,
                recipe_link if name == stated else "-",
                f"[{name}]({weights.url})",
            ]
        )
    if not rows:
        size = f"{entry.num_params / 1e6:.1f} M"
        none = ["-"] * len(METRICS[entry.task])
        rows.append([f"`{entry.full_name}`", size, *none, recipe_link, "-"])
    return rows


def recipes_table() -> str:
    """Return one row for each recipe file."""
    head = ["recipe", "model", "epochs", "images a step", "expected", "provenance"]
    return table(head, [recipe_row(recipe) for recipe in recipes().values()], right=(2, 3))


def recipe_row(recipe: Recipe) -> list[str]:
    """Return one recipe's row."""
    reference = recipe.config.get("reference") or {}
    metrics = reference.get("metrics") or {}
    return [
        link(recipe.name),
        f"`{recipe.model}`",
        str(recipe.get("trainer.max_epochs", "-")),
        str(recipe.config["batch"]["size"]),
        ", ".join(f"{name} {value}" for name, value in metrics.items()) or "-",
        str(reference.get("provenance", "-")),
    ]


TABLES: dict[str, Callable[[], str]] = {"models": models_table, "recipes": recipes_table}


def draw(text: str) -> str:
    """Return the README's text with the tables drawn anew.

    Raises:
        ZooError: If a pair of markers does not stand there exactly once.
    """
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ZooError(f"README.md: expected {begin} and then {end}, each of them once")
        pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.S)
        drawn = f"{begin}\n\n{make()}\n\n{end}"
        text = pattern.sub(lambda _, drawn=drawn: drawn, text)  # type: ignore[misc]
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the README, or say where it differs; return the exit status."""
    parser = argparse.ArgumentParser(description="Draw the README's tables.")
    parser.add_argument("--check", action="store_true", help="change nothing; 1 where it differs")
    parser.add_argument("--file", type=Path, default=ROOT / "README.md", help="the README")
    options = parser.parse_args(argv)
    path: Path = options.file
    if path.is_file():
        old = path.read_text(encoding="utf-8")
    elif options.check:
        print(f"{path} is missing; write it with: python scripts/update_readme.py", file=sys.stderr)
        return 1
    else:
        old = NEW_README
    try:
        new = draw(old)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.check:
        path.write_text(new, encoding="utf-8")
        return 0
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), str(path), "as drawn", lineterm="", n=0
    )
    differing = list(lines)
    if differing:
        print(*differing, "mend it with: python scripts/update_readme.py", sep="\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
