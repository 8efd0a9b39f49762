"""A trained classifier brought to INT8, and what that costs and gains: one table."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_zoo import int8
from lightning_zoo.batch import counted
from lightning_zoo.engine.evaluate import load_task
from lightning_zoo.engine.fit import fit
from lightning_zoo.engine.int8_table import (
    Candidate,
    Row,
    as_json,
    describe,
    file_size_mb,
    format_rows,
    measure,
)
from lightning_zoo.engine.predict import Source, find_source
from lightning_zoo.engine.session import Overrides, as_pairs, build_data, build_task, hush, plan_for
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.models import get_entry, get_model
from lightning_zoo.recipe import Recipe, load_recipe, recipe_files
from lightning_zoo.runs import Run, write_text
from lightning_zoo.tasks.quantization import without_auxiliary_heads

PROGRAM, TABLE = "int8.pt2", "int8.json"
CALIBRATION_IMAGES, CALIBRATION_BATCH = 1024, 32
QAT_EPOCHS = 8


@dataclass(frozen=True)
class QuantizeResult:
    """What quantizing came to.

    Attributes:
        run: The run's folder, None where published INT8 weights were measured.
        program: The INT8 program, a ``.pt2`` file that ``torch.export.load`` reads.
        rows: The table: fp32 first, then INT8 by engine.
        threads: Threads that the latencies were measured with.
        side: Side of the images that they were measured with, in pixels.
    """

    run: Path | None
    program: Path | None
    rows: tuple[Row, ...]
    threads: int
    side: int

    def table(self) -> str:
        """Return the table as text, and how it came about."""
        return f"{format_rows(self.rows)}\n{describe(self.threads, self.side)}"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "run": None if self.run is None else str(self.run),
            "program": None if self.program is None else str(self.program),
            **as_json(self.rows, self.threads, self.side),
        }


def quantize(
    what: str | Path,
    overrides: Overrides = (),
    *,
    qat: bool = False,
    weights: str = "DEFAULT",
    images: int = CALIBRATION_IMAGES,
    engines: Sequence[str] | None = None,
    threads: int = 1,
    out: str | Path = "runs",
    debug: bool = False,
) -> QuantizeResult:
    """Quantize a classifier, and measure it beside its float network.

    Args:
        what: A run of a classifier (folder, ``last``, a recipe's name), its checkpoint, or a
            model's name, whose published weights are taken. A run that was quantized, and
            ``quantization/<model>`` for published INT8 weights, are measured alone.
        overrides: Keys of the INT8 recipe to replace: ``{"data.root": "my_data"}``. With
            ``{"data.train_views": "random"}`` calibration sees training images as training does.
        qat: Train on with rounding simulated, rather than calibrate.
        weights: With a model's name: which of its published weights, or a file.
        images: Training images that calibration sees.
        engines: Engines to measure (of a person's own networks ``onednn``, ``inductor``,
            ``reference``); None takes all that work here, but for the slow ``reference``.
        threads: Threads that the latencies are measured with.
        out: Folder of the run folders.
        debug: Let Lightning speak.

    Returns:
        The run's folder, the program's file and the table, which also stands in the run's
        ``int8.json``.

    Raises:
        ZooError: If it is no classifier, the data does not fit, or torchao is missing.
    """
    hush(debug)
    if threads < 1 or images < 1:
        name, value = ("--threads", threads) if threads < 1 else ("--images", images)
        raise ZooError(f"{name} is {value}; expected a whole number of at least 1")
    if str(what).startswith("quantization/"):
        return _measure_published(str(what), as_pairs(overrides), weights, engines, threads)
    if importlib.util.find_spec("torchao") is None:  # said now, not after minutes of loading
        raise ZooError(
            "quantizing needs the package torchao; "
            "install it with: pip install 'lightning_zoo[int8]'"
        )
    chosen = _engines(engines, int8.ENGINES, int8.available_engines())
    source = find_source(what, Path(out))
    if source.task != "classification":
        raise ZooError(
            f"{source.model} is a {source.task} model; quantize takes classifiers, "
            "see: python -m lightning_zoo models ls --task classification"
        )
    if source.recipe is not None and source.recipe.is_int8:
        if qat or any(not key.startswith("data.") for key, _ in as_pairs(overrides)):
            start = Path(str(source.recipe.get("model.weights")))
            name = str(start.parent.parent) if start.suffix == ".ckpt" else source.model
            raise ZooError(
                f"{what} is INT8 already; it was made from {name}: "
                f"python -m lightning_zoo quantize {name}{' --qat' if qat else ''}"
            )
        assert source.checkpoint is not None
        run = Run(source.checkpoint.resolve().parent.parent)
        if run.state().status != "finished":
            print(  # noqa: T201
                f"note     this run has not come to its end; go on with: python -m lightning_zoo "
                f"fit --recipe {run.recipe_file} --resume {run.path}"
            )
        recipe = source.recipe.with_overrides(as_pairs(overrides)).check()
        return _measure_run(run, source.checkpoint, recipe, chosen, threads)
    recipe = int8_recipe(source, qat=qat, weights=weights, images=images)
    recipe = recipe.with_overrides(as_pairs(overrides)).check()
    recipe = _fitted_to_data(recipe)
    run = Run(fit(recipe, out=out, debug=debug, advise=False).run)
    return _measure_run(run, run.best, load_recipe(run.recipe_file), chosen, threads)


# ---------------------------------------------------------------------------------------------
# The recipe


def int8_recipe(
    source: Source, *, qat: bool, weights: str = "DEFAULT", images: int = CALIBRATION_IMAGES
) -> Recipe:
    """Return the recipe that quantizes a model or a run's network.

    A model with an INT8 recipe of the same method brings its own; any other takes data, network and
    batch of its float recipe, and for ``qat`` SGD at a low rate.
    """
    method = "qat" if qat else "ptq"
    if source.recipe is None:
        name = f"{source.model}_int8"
        own = load_recipe(name) if name in recipe_files() else None
        if own is not None and own.get("model.method", "ptq") == method:
            asked = [] if weights == "DEFAULT" else [("model.weights", weights)]
            return own.with_overrides([*asked, *_steps(method, images)])
        assert source.entry is not None
        assert source.entry.recipe is not None
        trained, start = load_recipe(source.entry.recipe), weights
    else:
        assert source.checkpoint is not None
        trained, start = source.recipe, str(source.checkpoint.resolve())
        name = f"{trained.name}_int8"
        if (source.checkpoint.parent.parent / "run.json").is_file():
            name = f"{Run(source.checkpoint.parent.parent).state().recipe}_int8"
    config = copy.deepcopy(trained.config)
    args = config["model"].get("init_args", {})
    kept = ("model", "num_classes", "model_args", "multilabel", "mean", "std")
    new = {key: args[key] for key in kept if key in args}
    new |= {"weights": start, "method": method, "image_size": trained.get("data.eval_crop", 224)}
    if qat:
        new["optimizer"] = {
            "class_path": "torch.optim.SGD",
            "init_args": {"lr": 0.001, "momentum": 0.9, "weight_decay": 1e-4},
        }
        new["lr_schedule"] = {"class_path": "CosineDecay", "init_args": {"by": "step"}}
    config["model"] = {"class_path": "QuantizationTask", "init_args": new}
    data = config["data"].setdefault("init_args", {})
    # what regularises a long training from nothing only disturbs a short one
    for key in ("auto_augment", "random_erasing", "repeated_augmentation"):
        data.pop(key, None)
    if not qat:
        data["train_views"] = "eval"
        config["batch"] = {"size": CALIBRATION_BATCH, "per_device": CALIBRATION_BATCH}
    config["trainer"] = {"max_epochs": QAT_EPOCHS}
    config["run"] = {**config.get("run", {}), "loggers": ["csv"]}
    config.pop("reference", None)
    return Recipe(name, None, config).with_overrides(_steps(method, images))


def _steps(method: str, images: int) -> list[tuple[str, Any]]:
    """Return the length of a calibration; it needs no GPU, and one process alone sees all."""
    if method == "qat":
        return []
    return [
        ("trainer.max_epochs", 1),
        ("trainer.limit_train_batches", -(-images // CALIBRATION_BATCH)),
        ("trainer.accelerator", "cpu"),
    ]


def _fitted_to_data(recipe: Recipe) -> Recipe:
    """Return the recipe with a batch that the data fills.

    Raises:
        ZooError: If the data has other classes than the network.
    """
    data = build_data(recipe, plan_for(recipe, 1), "fit")
    model, weights = recipe.get("model.model"), recipe.get("model.weights")
    known = recipe.get("model.num_classes")
    published = get_entry(model).weights
    if weights == "DEFAULT" or weights in published:
        known = get_entry(model).get_weights(weights).num_classes
    if known is not None and known != data.num_classes:
        raise ZooError(
            f"{model} knows {counted(known, 'class', 'es')} and the data in "
            f"{recipe.get('data.root')!r} has {data.num_classes}; train it on this data first "
            f"(fit --recipe finetune_resnet18 --data.root {recipe.get('data.root')}), "
            "then quantize that run"
        )
    size = int(recipe.get("batch.size"))
    if recipe.get("model.method") == "ptq" and data.num_train_samples < size:
        few = data.num_train_samples
        return recipe.with_overrides([("batch.size", few), ("batch.per_device", few)])
    return recipe


# ---------------------------------------------------------------------------------------------
# The table


def _measure_run(
    run: Run, checkpoint: Path, recipe: Recipe, engines: Sequence[str], threads: int
) -> QuantizeResult:
    """Measure a quantized run, and write its program and its table into its folder."""
    recipe = recipe.with_overrides([("batch.size", recipe.get("batch.per_device"))])
    data = build_data(recipe, plan_for(recipe, 1), "validate")
    task, config = build_task(recipe, num_classes=data.num_classes, structure_only=True)
    names = load_task(task, checkpoint)
    task.eval()
    program, path = task.program(), run.path / PROGRAM
    side = int(recipe.get("data.eval_crop"))
    args = config["model"]["init_args"]
    facts = {
        "model": recipe.model,
        "classes": list(names),
        "mean": [float(v) / 255 for v in task.mean],
        "std": [1 / (255 * float(v)) for v in task.scale],
        "eval_resize": recipe.get("data.eval_resize"),
        "eval_crop": side,
    }
    int8.save(program, path, example=torch.zeros(2, 3, side, side), facts=facts)
    candidates = []
    if (network := _float_network(args)) is not None:
        candidates.append(Candidate("fp32", "torch", network, file_size_mb(network)))
    else:
        lost = args.get("weights")
        why = f"{lost} is not there" if lost else "the run started from random weights"
        print(f"note     fp32 is not measured: {why}")  # noqa: T201
    size = path.stat().st_size / 1e6
    candidates += [Candidate("int8", e, int8.lower(program, e), size) for e in engines]
    print(f"measuring {', '.join(f'{c.network} ({c.engine})' for c in candidates)}", flush=True)  # noqa: T201
    rows = measure(candidates, task, data.val_dataloader(), side=side, threads=threads)
    result = QuantizeResult(run.path, path, tuple(rows), threads, side)
    write_text(run.path / TABLE, json.dumps(result.as_json(), indent=1) + "\n")
    return result


def _float_network(args: dict[str, Any]) -> nn.Module | None:
    """Return the float network that a quantized run started from, None where it is gone."""
    weights = args.get("weights")
    if weights is None or (weights.endswith(".ckpt") and not Path(weights).is_file()):
        return None
    network = get_model(
        args["model"],
        weights=weights,
        num_classes=args["num_classes"],
        **(args.get("model_args") or {}),
    )
    return without_auxiliary_heads(network).eval()


def _measure_published(
    name: str,
    overrides: Iterable[tuple[str, Any]],
    weights: str,
    engines: Sequence[str] | None,
    threads: int,
) -> QuantizeResult:
    """Measure published INT8 weights by every engine, beside the float network's."""
    entry = get_entry(name)
    facts = entry.get_weights(weights if weights in entry.weights else None)
    from lightning_zoo.models.quantization.eager import ENGINES, supported_engines

    chosen = _engines(engines, ENGINES, supported_engines())
    assert entry.recipe is not None
    recipe = load_recipe(entry.recipe)
    pre = facts.preprocessing
    assert pre is not None
    own: list[tuple[str, Any]] = [("model.weights", facts.name)]
    own += [("data.eval_resize", pre.resize), ("data.eval_crop", pre.crop)]
    recipe = recipe.with_overrides([*own, *overrides]).check()
    recipe = recipe.with_overrides([("batch.size", recipe.get("batch.per_device"))])
    data = build_data(recipe, plan_for(recipe, 1), "validate")
    if data.num_classes != facts.num_classes:
        raise ZooError(
            f"{name} knows {facts.num_classes} classes and the data in "
            f"{recipe.get('data.root')!r} has {data.num_classes}; train {entry.name} on this data, "
            "then quantize that run"
        )
    task, _ = build_task(recipe, num_classes=data.num_classes, structure_only=True)
    network = get_model(entry.name, weights=float_weights(facts.name))
    network = without_auxiliary_heads(network).eval()
    candidates = [Candidate("fp32", "torch", network, file_size_mb(network))]
    for engine in chosen:
        network = get_model(name, weights=weights, quantize=True, backend=engine).eval()
        candidates.append(Candidate("int8", engine, network, file_size_mb(network)))
    side = int(recipe.get("data.eval_crop"))
    rows = measure(candidates, task, data.val_dataloader(), side=side, threads=threads)
    return QuantizeResult(None, None, tuple(rows), threads, side)


def float_weights(int8_weights: str) -> str:
    """Return the name of the float weights that published INT8 weights were made from."""
    return f"IMAGENET1K_{int8_weights.rpartition('_')[2]}"


def _engines(
    asked: Sequence[str] | None, known: Iterable[str], there: Sequence[str]
) -> Sequence[str]:
    """Return the engines to measure.

    Raises:
        ZooError: If one that is asked for does not exist or does not work here.
    """
    for name in asked or ():
        if name not in known:
            raise unknown("--engines", name, known)
        if name not in there:
            raise ZooError(
                f"--engines {name} does not work on this machine; here are {', '.join(there)}"
            )
    return list(asked) if asked else [name for name in there if name != "reference"]
