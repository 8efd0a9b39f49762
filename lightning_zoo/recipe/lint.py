"""Checks a recipe against the real signatures, without importing torch.

Every problem is one sentence with the key, the value and what was expected; the caller adds where
it stands (file and line, or the option on the command line).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lightning_zoo.errors import ZooError, nearest, unknown
from lightning_zoo.models.registry import list_models
from lightning_zoo.recipe.schema import (
    Parameter,
    Signature,
    accepts,
    describe,
    our_classes,
    signature,
)
from lightning_zoo.recipe.trust import (
    DATA,
    FINETUNING,
    OPTIMIZER,
    PART,
    SCHEDULE,
    TASK,
    TRAINER,
    TRANSFORM,
    Slot,
    is_trusting,
)

KeyPath = tuple[str | int, ...]

_NONE = ast.Constant(None)
SECTIONS = ("seed_everything", "model", "data", "batch", "trainer", "run", "reference")
REQUIRED = ("model", "data", "batch", "trainer")
BATCH_KEYS = {"size": int, "per_device": int}
RUN_KEYS = {
    "loggers": list,
    "checkpoint_steps": (int, type(None)),
    "pictures": int,
    "rank_timeout": (int, float),
}
# Where the classes of a section stand, and how they are called.
KINDS: dict[KeyPath, tuple[str, str]] = {
    ("model",): ("tasks", "Task"),
    ("data",): ("datamodules", "DataModule"),
}
BASES = ("Task", "ZooDataModule", "SegmentationDataModule")
LOGGERS = ("csv", "wandb", "tensorboard")
REFERENCE_KEYS = {
    "devices": int,
    "per_device": int,
    "metrics": dict,
    "tolerance": (int, float),
    "weights": str,
    "hardware": str,
    "provenance": str,
    "source": str,
    "note": str,
}
# Values of the trainer's arguments that start nothing but torch and Lightning; the other arguments
# are numbers and switches.
PLAIN_TRAINER: dict[str, tuple[Any, ...]] = {
    "accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "strategy": (
        "auto",
        "ddp",
        "ddp_find_unused_parameters_true",
        "ddp_find_unused_parameters_false",
        "fsdp",
    ),
    "precision": (
        *(None, 16, 32, 64, "16", "32", "64", "bf16"),
        *("16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true"),
    ),
    "profiler": (None, "simple", "advanced"),
    "plugins": (None,),
    "model_registry": (None,),  # names a place on the internet
}
# Arguments of the trainer that we set ourselves, and what says the same.
OWNED = {
    "devices": "use --devices",
    "logger": "use run.loggers or --logger",
    "callbacks": "they follow from the recipe",
    "accumulate_grad_batches": "it follows from batch.size and batch.per_device",
    "default_root_dir": "use --out",
    "use_distributed_sampler": "our sampler is exact",
    "enable_checkpointing": "use run.checkpoint_steps",
    "enable_progress_bar": "the console is ours",
    "enable_model_summary": "the console is ours",
    "fast_dev_run": "use --smoke",
}


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands among the keys, and the sentence that says so."""

    path: KeyPath
    text: str


def lint(config: Any) -> list[Problem]:
    """Return every problem of a recipe's plain data, in the file's order."""
    if not isinstance(config, dict):
        return [Problem((), "a recipe is a mapping of sections: " + ", ".join(SECTIONS))]
    return list(_sections(config))


def _sections(config: dict[str, Any]) -> Iterator[Problem]:
    for key in config:
        if key not in SECTIONS:
            yield Problem((key,), _unknown_key("section", key, SECTIONS))
    for key in REQUIRED:
        if not isinstance(config.get(key), dict):
            yield Problem((key,) if key in config else (), f"the section {key!r} is missing")
    seed = config.get("seed_everything", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        yield Problem(("seed_everything",), f"seed_everything is {seed!r}; expected 0 or more")
    for section in ("model", "data"):
        if isinstance(config.get(section), dict):
            slot = TASK if section == "model" else DATA
            yield from _node(config[section], (section,), slot)
    if isinstance(config.get("trainer"), dict):
        yield from _trainer(config["trainer"])
    for section, keys in (("batch", BATCH_KEYS), ("run", RUN_KEYS), ("reference", REFERENCE_KEYS)):
        if isinstance(config.get(section), dict):
            yield from _fixed(config[section], section, keys)
    if isinstance(config.get("batch"), dict):
        for key in BATCH_KEYS:
            if key not in config["batch"]:
                yield Problem(
                    ("batch",),
                    f"batch.{key} is missing: images of one "
                    + ("optimizer step" if key == "size" else "forward pass"),
                )
    run = config.get("run")
    for i, name in enumerate(run.get("loggers") or [] if isinstance(run, dict) else []):
        if name not in LOGGERS:
            yield Problem(("run", "loggers", i), _unknown_key("logger", str(name), LOGGERS))


def _node(node: dict[str, Any], path: KeyPath, slot: Slot) -> Iterator[Problem]:
    """Check one ``{class_path, init_args}`` against the class's own signature."""
    for key in node:
        if key not in ("class_path", "init_args"):
            yield Problem((*path, key), _unknown_key("key", key, ("class_path", "init_args")))
    class_path, args = node.get("class_path"), node.get("init_args", {})
    if not isinstance(class_path, str):
        yield Problem(path, f"{_dotted(path)} names no class; expected class_path: NAME")
        return
    if not isinstance(args, dict):
        yield Problem((*path, "init_args"), f"{_dotted(path)}.init_args is no mapping")
        return
    try:
        if path in KINDS:
            _check_kind(class_path, *KINDS[path])
        found = signature(class_path, (slot,))
    except ZooError as error:
        yield Problem((*path, "class_path"), str(error))
        return
    deferred = slot in (OPTIMIZER, SCHEDULE)
    yield from _arguments(args, found, (*path, "init_args"), deferred=deferred)


def _slot(parameter: Parameter, path: KeyPath) -> Slot:
    """Return what an argument takes where it takes a class."""
    if parameter.deferred:
        return OPTIMIZER if "Optimizer" in ast.unparse(parameter.annotation or _NONE) else SCHEDULE
    if parameter.takes:
        return FINETUNING
    return TRANSFORM if path[0] == "data" else PART


def _check_kind(class_path: str, folder: str, ending: str) -> None:
    """Refuse a class of ours of another kind.

    Raises:
        ZooError: If it is one; the text names the nearest of the kind.
    """
    known = [
        name
        for name, file in our_classes().items()
        if file.parent.name == folder and name.endswith(ending) and name not in BASES
    ]
    if "." not in class_path and class_path not in known:
        raise unknown("class", class_path, known)


def _arguments(
    args: dict[str, Any], found: Signature, path: KeyPath, *, deferred: bool
) -> Iterator[Problem]:
    for key, value in args.items():
        if key in found.parameters:
            yield from _value(value, found.parameters[key], (*path, key))
        elif not found.open:
            text = _unknown_key(f"argument of {found.name}", key, found.parameters)
            yield Problem((*path, key), text)
    needed = [p.name for p in found.parameters.values() if p.required and p.name not in args]
    for name in needed[1:] if deferred else needed:
        yield Problem(path[:-1], f"{found.name} needs the argument {name!r}")


def _value(value: Any, parameter: Parameter, path: KeyPath) -> Iterator[Problem]:
    slot = _slot(parameter, path)
    if isinstance(value, dict) and "class_path" in value:
        if parameter.takes and value["class_path"] != parameter.takes:
            text = f"{_dotted(path)}.class_path is {value['class_path']!r}; expected "
            yield Problem((*path, "class_path"), text + parameter.takes)
            return
        yield from _node(value, path, slot)
    elif (
        isinstance(value, dict)
        and parameter.takes is None
        and any(isinstance(v, dict) for v in value.values())
    ):
        for key, item in value.items():  # a node within plain data: model_args
            if isinstance(item, dict) and "class_path" in item:
                yield from _node(item, (*path, key), slot)
    elif isinstance(value, list) and any(isinstance(v, dict) and "class_path" in v for v in value):
        for i, item in enumerate(value):
            if isinstance(item, dict):
                yield from _node(item, (*path, i), slot)
    elif parameter.deferred and value is not None:
        yield Problem(path, f"{_dotted(path)} is {value!r}; expected class_path and init_args")
    elif not accepts(parameter.annotation, value):
        text = f"{_dotted(path)} is {value!r}; expected {describe(parameter.annotation)}"
        yield Problem(path, text)
    elif path == ("model", "init_args", "model") and value not in list_models():
        guess = nearest(str(value), list_models())
        text = f"unknown model {value!r}" + (f"; did you mean {guess}?" if guess else "")
        yield Problem(path, text + " (see: python -m lightning_zoo models ls)")


def _trainer(section: dict[str, Any]) -> Iterator[Problem]:
    found = signature("lightning.pytorch.trainer.trainer.Trainer", (TRAINER,))
    free = {k: p for k, p in found.parameters.items() if k not in OWNED}
    for key, value in section.items():
        path = ("trainer", key)
        if key in OWNED:
            yield Problem(path, f"trainer.{key} cannot be set in a recipe: {OWNED[key]}")
        elif key not in free:
            yield Problem(path, _unknown_key("argument of the trainer", key, free))
        elif _holds_class(value):
            yield Problem(path, f"trainer.{key} names a class; the trainer takes plain values")
        elif key in PLAIN_TRAINER and not is_trusting() and not _among(value, PLAIN_TRAINER[key]):
            known = ", ".join("null" if v is None else str(v) for v in PLAIN_TRAINER[key])
            text = f"trainer.{key} is {value!r}; expected one of {known} (--trust allows others)"
            yield Problem(path, text)
        else:
            yield from _value(value, free[key], path)
    if section.get("max_epochs") is None and section.get("max_steps") is None:
        yield Problem(("trainer",), "trainer.max_epochs is missing: the run would have no end")


def _holds_class(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, dict) and "class_path" in value) or any(map(_holds_class, inner))


def _among(value: Any, known: tuple[Any, ...]) -> bool:
    return any(value == one and type(value) is type(one) for one in known)


def _fixed(section: dict[str, Any], name: str, keys: dict[str, Any]) -> Iterator[Problem]:
    for key, value in section.items():
        if key not in keys:
            yield Problem((name, key), _unknown_key(f"key of {name}", key, keys))
        elif not isinstance(value, keys[key]) or isinstance(value, bool):
            yield Problem((name, key), f"{name}.{key} is {value!r}; expected {_said(keys[key])}")


def _said(kind: Any) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    words = {int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
    return " or ".join(words.get(k, "null" if k is type(None) else "text") for k in kinds)


def _unknown_key(kind: str, key: str, known: Any) -> str:
    guess = nearest(key, known)
    tail = f"did you mean {guess}?" if guess else f"expected one of {', '.join(sorted(known))}"
    return f"unknown {kind} {key!r}; {tail}"


def _dotted(path: KeyPath) -> str:
    return ".".join(str(p) for p in path if p != "init_args")
