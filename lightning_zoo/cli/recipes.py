from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.batch import plan_batches
from lightning_zoo.cli import new_parser
from lightning_zoo.errors import ZooError
from lightning_zoo.recipe import Recipe, find_recipe, list_recipes, load_recipe, recipe_files


def run(args: Sequence[str], *, debug: bool) -> int:
    """List, show, copy or check recipes."""
    parser = new_parser("recipes", "Recipes: one YAML file is one complete run.")
    verbs = parser.add_subparsers(dest="verb", metavar="{ls,show,cp,lint}", required=True)
    ls = verbs.add_parser("ls", help="one line a recipe", description="One line a recipe.")
    ls.add_argument("filter", nargs="?", default="", help="part of a name")
    ls.add_argument("--task", metavar="FOLDER", help="classification, finetune, demo, ...")
    ls.add_argument("--json", action="store_true", help="print as JSON")
    show = verbs.add_parser("show", help="print one", description="Print one recipe.")
    show.add_argument("name", help="a recipe's name or file")
    show.add_argument("--json", action="store_true", help="print as JSON")
    cp = verbs.add_parser("cp", help="copy one to edit it", description="Copy a recipe to edit it.")
    cp.add_argument("name", help="a recipe's name or file")
    cp.add_argument("to", nargs="?", default=".", help="file or folder (here)")
    lint = verbs.add_parser(
        "lint", help="check against the code", description="Check recipes against the code."
    )
    lint.add_argument("names", nargs="*", help="names or files; left out, every recipe")
    options = parser.parse_args(list(args))
    actions = {"ls": _ls, "show": _show, "cp": _cp, "lint": _lint}
    return actions[options.verb](options)


def facts(recipe: Recipe) -> dict[str, Any]:
    """Return what the listing says of a recipe."""
    reference = recipe.config.get("reference") or {}
    batch = recipe.config.get("batch") or {}
    return {
        "name": recipe.name,
        "folder": recipe.path.parent.name if recipe.path else "",
        "model": recipe.model,
        "epochs": recipe.get("trainer.max_epochs"),
        "batch": batch.get("size"),
        "per_device": batch.get("per_device"),
        "metrics": reference.get("metrics") or {},
        "provenance": reference.get("provenance", ""),
        "title": recipe.header[0].split(": python -m")[0] if recipe.header else "",
    }


def _ls(options: Any) -> int:
    found = [facts(r) for r in list_recipes(options.task) if options.filter in r.name]
    if options.json:
        print(json.dumps(found))
        return 0
    width = max((len(f["name"]) for f in found), default=4)
    print(f"{'recipe':<{width}}  epochs  batch  mark  expected")
    for f in found:
        expected = ", ".join(f"{k} {v}" for k, v in f["metrics"].items()) or "-"
        print(f"{f['name']:<{width}}  {f['epochs'] or '-':>6}  {f['batch'] or '-':>5}  "
              f"{f['provenance'] or '-':<4}  {expected}")  # fmt: skip
    if not found:
        print(
            f"no recipe has {options.filter!r} in its name; see: python -m lightning_zoo recipes ls"
        )
    return 0


def _show(options: Any) -> int:
    recipe = load_recipe(options.name)
    if options.json:
        print(json.dumps(recipe.config))
        return 0
    path = find_recipe(options.name)
    print(path.read_text(encoding="utf-8"), end="")
    batch = recipe.check().config["batch"]
    reference = recipe.config.get("reference") or {}
    known = {k: reference[k] for k in ("devices", "per_device") if k in reference}
    plan = plan_batches(batch["size"], batch["per_device"], 1)
    unit = "clip" if recipe.task == "video" else "image"
    arithmetic = plan.explain(known if len(known) == 2 else None, unit=unit)
    print(f"\n# {path}\n# on one device: {arithmetic}")
    return 0


def _cp(options: Any) -> int:
    source, target = find_recipe(options.name), Path(options.to)
    if target.is_dir():
        target /= source.name
    if target.exists():
        raise ZooError(
            f"{target} is there already; name another file: recipes cp {options.name} FILE"
        )
    if not target.parent.is_dir():
        raise ZooError(f"no folder {target.parent} to copy to")
    shutil.copyfile(source, target)
    print(f"{target}: edit it, then: python -m lightning_zoo fit --recipe {target}")
    return 0


def _lint(options: Any) -> int:
    names = options.names or list(recipe_files())
    wrong = 0
    for name in names:
        try:
            problems = load_recipe(name).problems()
        except ZooError as error:
            if len(names) == 1:
                raise
            problems = [str(error)]
        for text in problems:
            print(text, file=sys.stderr)
        wrong += bool(problems)
    print(f"{len(names)} recipes checked, {wrong} with mistakes" if len(names) > 1
          else ("no mistakes" if not wrong else "1 recipe with mistakes"))  # fmt: skip
    return 2 if wrong else 0
