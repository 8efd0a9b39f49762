"""From a run or a model of the zoo to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from lightning_zoo.engine.predict import find_source
from lightning_zoo.engine.session import hush
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.export import FORMATS
from lightning_zoo.export.check import Checked, check
from lightning_zoo.export.files import load, need_extra, quietly, write_onnx, write_pt2
from lightning_zoo.export.subject import Subject, find_subject, read_images

OPSETS = range(18, 24)
NUM_SAMPLES = 4


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: The file.
        facts: What it says of itself.
        inputs: Shape by name; free sides are letters: N, T, H, W.
        outputs: Shape by name, likewise; other free sides are ``?``.
        checked: What a comparison with torch found; None without one.
    """

    path: Path
    facts: dict[str, Any]
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    checked: Checked | None = None


def export_run(
    what: str | Path,
    *,
    format: str = "onnx",
    out: str | Path | None = None,
    weights: str = "DEFAULT",
    opset: int = 18,
    size: tuple[int, int] | None = None,
    apply_thresholds: bool = False,
    check: bool = False,
    images: str | Path | None = None,
    runs: str | Path = "runs",
    debug: bool = False,
) -> Exported:
    """Write a run's or a published model's network as a file with all that it takes to use it.

    Classifiers and segmenters take uint8 RGB images ``(N, 3, H, W)`` (clips: ``(N, 3, T, H, W)``)
    that were resized and cut as in evaluation; the facts say to which size, and normalising is
    inside. Detectors take one uint8 image ``(3, H, W)`` of any size, as they do everything else
    inside, and return boxes in its pixels.

    Args:
        what: A run (folder, ``last``, a recipe's name), a checkpoint, or a model's name.
        format: ``onnx`` or ``pt2``.
        out: The file; None for ``<run>/<model>.<format>``, of a model ``<model>.<format>``.
        weights: With a model's name: which published weights, a file, or ``none`` for random ones.
        opset: Version of ONNX's operations.
        size: Height and width that the network is traced with: the only ones that a file takes
            whose sides cannot be free. None for those of evaluation.
        apply_thresholds: Drop detections below the threshold of their class inside the file.
        check: Compare the file with torch on several inputs; see ``checked`` of the result.
        images: Folder of photos to compare on, for detectors.
        runs: Folder of the run folders.
        debug: Let Lightning speak.

    Raises:
        ZooError: If there is no such run or model, or it cannot be exported.
    """
    hush(debug)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "onnx":
        need_extra()
        if opset not in OPSETS:
            raise ZooError(f"--opset is {opset}; expected {OPSETS[0]} to {OPSETS[-1]}")
    source = find_source(what, Path(runs))
    folder = source.checkpoint.parents[1] if source.checkpoint is not None else Path()
    path = Path(out) if out is not None else folder / f"{source.model}.{format}"
    if path.is_dir():
        raise ZooError(
            f"--out {path} is a folder; name a file: --out {path / source.model}.{format}"
        )
    subject = find_subject(source, weights, size=size, apply_thresholds=apply_thresholds)
    if format == "onnx" and subject.facts.get("int8"):
        raise ZooError(
            f"{what} is an INT8 program, which is not proved in ONNX: use --format pt2, or export "
            "the float run that it was made from"
        )
    photos = read_images(Path(images), subject.task) if images is not None else []
    exported = export_subject(subject, path, format=format, opset=opset)
    if not check:
        return exported
    samples = photos or subject.samples(NUM_SAMPLES)
    return with_check(subject, exported, samples)


def with_check(subject: Subject, exported: Exported, samples: list[torch.Tensor]) -> Exported:
    """Return an exported file with what its comparison with torch found."""
    network, _ = load(exported.path)
    (shape,) = exported.inputs.values()
    checked = check(subject, network, free=isinstance(shape[-1], str), samples=samples)
    return Exported(**{**vars(exported), "checked": checked})


def export_subject(
    subject: Subject, path: Path, *, format: str = "onnx", opset: int = 18
) -> Exported:
    """Trace a network and write it; see :func:`export_run`."""
    reason = ""
    for free in (True, False):
        try:
            program, made = _make(subject, free=free, format=format, opset=opset)
            break
        except Exception as error:  # many kinds, of torch and of the exporter
            lines = str(error.__cause__ or error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
    else:
        raise ZooError(f"{subject.facts['model']} cannot be exported as {format} ({reason})")
    inputs, outputs = _shapes(program, subject)
    (shape,) = inputs.values()
    subject.facts["input"] = {"name": subject.input, "shape": list(shape), "dtype": "uint8"}
    subject.facts["outputs"] = {name: list(shape) for name, shape in outputs.items()}
    if format == "onnx":
        write_onnx(made, path, subject.facts)
    else:
        write_pt2(program, path, subject.facts)
    return Exported(path, subject.facts, inputs, outputs)


def _make(
    subject: Subject, *, free: bool, format: str, opset: int
) -> tuple[ExportedProgram, torch.onnx.ONNXProgram | None]:
    """Return the traced network, and the same in ONNX where that is asked for.

    Args:
        subject: What is exported.
        free: Whether height and width (and frames) may be any; the batch always may.
        format: See :func:`export_run`.
        opset: See there.
    """
    # sides that differ are not taken for one and the same number
    height, width = subject.size
    example = subject.example((height, width + 32) if free else None)
    dims = range(1, example.ndim) if subject.task == "detection" else (0, *range(2, example.ndim))
    chosen = [d for d in dims if free or (d == 0 and subject.task != "detection")]
    with quietly(), torch.no_grad():
        program = torch.export.export(
            subject.graph,
            (example,),
            dynamic_shapes=(dict.fromkeys(chosen, Dim.AUTO),),
            strict=False,
        )
        if format != "onnx":
            return program, None
        from lightning_zoo.export.onnx_ops import DECOMPOSITIONS, TRANSLATIONS

        names = list(_outputs(program))
        made = torch.onnx.export(
            program.run_decompositions(DECOMPOSITIONS),
            input_names=[subject.input],
            output_names=names,
            opset_version=opset,
            custom_translation_table=TRANSLATIONS,
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    return program, made


def _outputs(program: ExportedProgram) -> dict[str, Any]:
    """Return the traced outputs by name."""
    (node,) = program.graph.find_nodes(op="output")
    values = [one.meta["val"] for one in node.args[0]]
    spec = program.call_spec.out_spec
    assert spec is not None
    return dict(torch.utils._pytree.tree_unflatten(values, spec))


def _shapes(program: ExportedProgram, subject: Subject) -> tuple[Any, Any]:
    """Return the shapes of input and outputs, with letters for the sides that are free."""
    (name,) = program.graph_signature.user_inputs
    (node,) = [n for n in program.graph.find_nodes(op="placeholder") if n.name == name]
    pixels = node.meta["val"]
    letters = "NCTHW" if pixels.ndim == 5 else "NCHW"
    known: dict[str, str] = {}
    shape: list[int | str] = []
    for letter, side in zip(letters[-pixels.ndim :], pixels.shape, strict=True):
        if isinstance(side, int):
            shape.append(side)
        else:
            known[str(side)] = letter
            shape.append(letter)
    outputs: dict[str, tuple[int | str, ...]] = {}
    for output, value in _outputs(program).items():
        outputs[output] = tuple(
            side if isinstance(side, int) else known.get(str(side), "?") for side in value.shape
        )
    if subject.task == "detection":  # as many as are found
        outputs = {k: ("N", *shape[1:]) for k, shape in outputs.items()}
    return {subject.input: tuple(shape)}, outputs
