from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_zoo.cli import new_parser
from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.export import FORMATS
from lightning_zoo.models.registry import list_models, real_classes
from lightning_zoo.runs import find_run


def run(args: Sequence[str], *, debug: bool) -> int:
    """Write a network as a file for other programs."""
    parser = new_parser(
        "export",
        "Write a run (folder, 'last' or a recipe's name), a checkpoint or a model of the\n"
        "zoo as one file with preprocessing, class names and thresholds inside.",
        "  python -m lightning_zoo export runs/last --format onnx --check\n"
        "  python -m lightning_zoo export resnet50 --format pt2 --out resnet50.pt2",
        usage="python -m lightning_zoo export RUN_OR_MODEL [--format onnx|pt2] [--check]",
    )
    parser.add_argument("what", metavar="RUN_OR_MODEL", help="what is written")
    parser.add_argument("--format", default="onnx", metavar="F", help="onnx (as is) or pt2")
    parser.add_argument("--out", metavar="FILE", help="the file (in the run's folder, or here)")
    parser.add_argument("--check", action="store_true", help="compare it with torch; exit 1 if off")
    parser.add_argument("--images", metavar="DIR", help="photos to check a detector on")
    parser.add_argument(
        "--weights", default="DEFAULT", metavar="W", help="with a model: name, file or none"
    )
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="ONNX opset (18)")
    parser.add_argument("--size", metavar="H,W", help="pixels to trace with (those of evaluation)")
    parser.add_argument(
        "--apply_thresholds", action="store_true", help="drop what is below them in the file"
    )
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    options = parser.parse_args(list(args))
    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    size = _size(options.size)
    models = list_models()
    if options.what not in models and Path(options.what).suffix != ".ckpt":
        find_run(options.what, Path(options.runs), models)

    from lightning_zoo.export import export_run

    made = export_run(
        options.what,
        format=options.format,
        out=options.out,
        weights=options.weights,
        opset=options.opset,
        size=size,
        apply_thresholds=options.apply_thresholds,
        check=options.check,
        images=options.images,
        runs=options.runs,
        debug=debug,
    )
    print(f"wrote    {made.path} ({made.path.stat().st_size / 2**20:.1f} MiB)")
    for title, shapes in (("input", made.inputs), ("output", made.outputs)):
        for name, shape in shapes.items():
            print(f"{title:<8} {name:<17} ({', '.join(map(str, shape))})")
    for line in _inside(made.facts):
        print(f"inside   {line}")
    print("\n".join(["use it:", *(f"  {line}" for line in usage(made.path, made.facts))]))
    if made.checked is None:
        return 0
    print(f"\n{made.checked.table()}")
    return 0 if made.checked.passed else 1


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise ZooError(f"--size is {text!r}; expected height and width in pixels, as 224,224")
    return int(parts[0]), int(parts[1])


def _inside(facts: dict[str, Any]) -> list[str]:
    """Return what a file does and holds, a line each."""
    names = list(real_classes(facts["classes"]).values())
    if facts["task"] == "detection":
        lines = ["resizing, normalising and padding; boxes come in pixels of the image"]
    else:
        how = f"resize to {facts['resize']}"
        if facts["crop"]:
            how += f" and cut {facts['crop']} x {facts['crop']} from the centre"
        lines = [f"normalising; before it {how} (left to the caller)"]
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        lines.append(f"{len(names)} class names: {shown}")
    if facts["thresholds"]:
        state = "applied" if facts["thresholds_applied"] else "not applied"
        lines.append(f"{len(facts['thresholds'])} thresholds by class, {state}")
    return lines


def usage(path: Path, facts: dict[str, Any]) -> list[str]:
    """Return four lines of Python that use a file, without lightning_zoo where it is ONNX."""
    name = json.dumps(str(path))
    task = facts["task"]
    if task == "video":
        pixels = "clips = numpy.zeros((1, 3, {}, {}, {}), 'uint8')  # frames, RGB".format(
            facts["clip_frames"], facts["crop"], facts["crop"]
        )
    elif task == "detection":
        pixels = "image = numpy.asarray(Image.open('photo.jpg').convert('RGB')).transpose(2, 0, 1)"
    else:
        opened = "Image.open('photo.jpg').convert('RGB')"
        if task == "segmentation":
            side = facts["resize"]
            fitted = f"ImageOps.cover({opened}, ({side}, {side}), 2)"
        else:
            edge = (facts["resize"] - facts["crop"]) // 2
            box = (edge, edge, edge + facts["crop"], edge + facts["crop"])
            square = (facts["resize"], facts["resize"])
            fitted = f"ImageOps.fit({opened}, {square}, 2).crop({box})"
        pixels = f"images = numpy.asarray({fitted}).transpose(2, 0, 1)[None]"
    variable = pixels.split(" ", 1)[0]
    needed = [name for name in ("Image", "ImageOps") if f"{name}." in pixels]
    pictures = f"; from PIL import {', '.join(needed)}" if needed else ""
    if path.suffix == ".pt2":
        return [
            f"import numpy, torch, lightning_zoo.export{pictures}",
            f"network, facts = lightning_zoo.export.load({name})",
            pixels,
            f"found = network(torch.from_numpy(numpy.ascontiguousarray({variable})))",
        ]
    outputs = ", ".join(facts["outputs"])
    comma = "," if len(facts["outputs"]) == 1 else ""
    return [
        f"import numpy, onnxruntime{pictures}",
        f"session = onnxruntime.InferenceSession({name})",
        pixels,
        f"{outputs}{comma} = session.run(None, {{{facts['input']['name']!r}: {variable}}})",
    ]
