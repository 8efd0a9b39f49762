"""Small runs of four tasks that draw all their random numbers, and what two runs differ in."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from kill_zygote import GONE_WITHIN, Death, Kill, Zygote

from lightning_zoo.datamodules.image_folder import ImageFolderDataModule
from lightning_zoo.engine.moving import write_moving
from lightning_zoo.engine.scenes import write_masks, write_scenes

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}
# MobileNets of a few blocks: batch norm and dropout as in large ones, and files of some 100 kB
SHALLOW = {
    "width_mult": 0.25,
    "inverted_residual_setting": [[1, 16, 1, 1], [2, 16, 1, 2], [2, 24, 1, 2], [2, 32, 1, 2]],
}
DETECTOR = {
    "backbone": "mobilenet_v2", "backbone_args": SHALLOW, "returned_layers": [2, 3],
    "fpn_channels": 8,
    "min_size": 64, "max_size": 64, "representation_size": 16, "anchor_sizes": [16, 32, 48],
    "aspect_ratios": [1.0], "rpn_post_nms_top_n_train": 16, "rpn_post_nms_top_n_test": 8,
    "box_batch_size_per_image": 16, "box_score_thresh": 0.0, "box_detections_per_img": 4,
    "mask_layers": [8], "mask_dim_reduced": 8,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "classification": {
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "model": "mobilenet_v2",
                "model_args": SHALLOW,
                "mixup_alpha": 0.2,
                "cutmix_alpha": 1.0,
                "ema_decay": 0.9,
                "ema_every_steps": 2,
                "optimizer": SGD,
                "lr_schedule": {"class_path": "CosineDecay", "init_args": {"by": "step"}},
            },
        },
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {"train_crop": 32, "eval_resize": 36, "eval_crop": 32,
                          "auto_augment": "trivial", "random_erasing": 0.5},
        },
    },
    "detection": {
        "model": {
            "class_path": "DetectionTask",
            "init_args": {
                "model": "mask_rcnn", "model_args": DETECTOR, "optimizer": SGD, "ema_decay": 0.9,
                "lr_schedule": {
                    "class_path": "MultiStepDecay",
                    "init_args": {"milestones": [1, 2], "warmup_epochs": 0.5},
                },
            },
        },
        "data": {
            "class_path": "CocoDataModule",
            "init_args": {"target": "masks", "aspect_ratio_groups": 3, "eval_batch": 2},
        },
    },
    "segmentation": {
        "model": {
            "class_path": "SegmentationTask",
            "init_args": {
                "model": "fcn",
                "model_args": {"backbone": "resnet18", "output_stride": 8},
                "aux_loss": True,
                "optimizer": SGD,
                "lr_schedule": {"class_path": "PolynomialDecay", "init_args": {}},
            },
        },
        "data": {
            "class_path": "MaskFolderDataModule",
            "init_args": {"train_resize": [36, 64], "train_crop": 32, "eval_resize": None,
                          "eval_batch": 2},
        },
    },
    "video": {
        "model": {
            "class_path": "VideoTask",
            "init_args": {
                "model": "video_resnet",
                "model_args": {"conv": "2plus1d", "layers": [1, 1], "widths": [4, 8]},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
                "lr_schedule": {"class_path": "CosineDecay", "init_args": {"by": "step"}},
            },
        },
        "data": {
            "class_path": "VideoFolderDataModule",
            "init_args": {"clip_frames": 4, "frame_rate": 7.5, "train_clips": 1, "eval_clips": 1,
                          "train_resize": [30, 34], "train_crop": 24, "eval_resize": [30, 34],
                          "eval_crop": 24, "index_workers": 0},
        },
    },
}  # fmt: skip
TASKS = tuple(RECIPES)
ENDS = (-signal.SIGKILL, -signal.SIGALRM)
HOOKS = (
    "on_train_batch_start", "on_before_optimizer_step", "lr_scheduler_step", "validation_step",
    "on_train_epoch_end", "on_validation_epoch_end",
)  # fmt: skip


def write_data(task: str, root: Path) -> None:
    """Write the data of a task: 11 or 12 samples for training and a few to validate with."""
    if task == "classification":
        ImageFolderDataModule.write_fake(root, classes=3, images=11, size=40)
    elif task == "detection":
        write_scenes(root, train=11, val=3, side=64)
    elif task == "segmentation":
        write_masks(root, train=11, val=3, side=48)
    else:
        write_moving(root, train=2, val=1, side=32, frames=12)


def write_recipe(folder: Path, task: str, root: Path, *, workers: int, **changes: Any) -> Path:
    """Write a recipe of two epochs of three steps; ``changes`` replace keys of whole sections."""
    recipe = json.loads(json.dumps(RECIPES[task]))
    recipe["data"]["init_args"] |= {"root": str(root), "workers": workers}
    recipe |= {
        "seed_everything": 0,
        "batch": {"size": 4, "per_device": 2},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
        "run": {"loggers": ["csv"], "checkpoint_steps": 2, "pictures": 0},
    }
    for section, keys in changes.items():
        recipe[section] |= keys
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "killed.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def load(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content."""
    return torch.load(path, weights_only=True)


def bits(tensor: torch.Tensor) -> bytes:
    """Return a tensor's values as they stand in memory: NaN equals itself, -0 is not 0."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def differences(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Yield where two structures of plain data and tensors are not equal to the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            yield f"{place}: {a.dtype} {tuple(a.shape)} != {b.dtype} {tuple(b.shape)}"
        elif bits(a) != bits(b):
            yield f"{place}: not equal"
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            if key not in a or key not in b:
                yield f"{place}/{key} is in one of the two only"
            else:
                yield from differences(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{place}/{i}")
    elif a != b and not (a != a and b != b):
        yield f"{place}: {a!r} != {b!r}"


def finished_runs(out: Path) -> list[Path]:
    """Return the folders of the runs that came to their end, oldest first."""
    states = {p.parent: json.loads(p.read_text())["status"] for p in out.glob("killed/*/run.json")}
    return sorted(run for run, status in states.items() if status == "finished")


def unlike(whole: Path, broken: Path) -> list[str]:
    """Return what a resumed run has otherwise than the unbroken one."""
    found = [
        f"{name}.ckpt{text}"
        for name in ("last", "best")
        for text in differences(
            *(load(run / f"checkpoints/{name}.ckpt") for run in (whole, broken))
        )
    ]
    csv = [(run / "metrics.csv").read_text() for run in (whole, broken)]
    if csv[0] != csv[1]:
        found.append(f"metrics.csv:\n{csv[0]}\n{csv[1]}")
    results = [json.loads((run / "run.json").read_text())["results"] for run in (whole, broken)]
    found += differences(*results, "run.json/results")
    files = [
        {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} for run in (whole, broken)
    ]
    if files[0] != files[1]:
        found.append(f"files: {sorted(files[0] ^ files[1])}")
    return found


@dataclass
class Tally:
    """What a sweep came to.

    Attributes:
        kills: Runs that were killed.
        chains: Runs that came to their end after kills, and were compared with the unbroken one.
        deaths: Where the kills fell: operations and hooks, with how often.
        problems: What was wrong, with the kills that led there.
        survivors: Seconds that ranks lived on after another one's death, and their statuses.
    """

    kills: int = 0
    chains: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    survivors: list[tuple[float, int]] = field(default_factory=list)


class Sweep:
    """Kills runs of one recipe and resumes them, until each came to its end.

    Args:
        zygote: Starts the runs.
        recipe: The recipe's file.
        folder: Where the runs stand.
        ranks: Processes of a run.
        seed: Seed of the kills.
    """

    def __init__(
        self, zygote: Zygote, recipe: Path, folder: Path, *, ranks: int = 1, seed: int = 0
    ) -> None:
        self.zygote, self.recipe, self.folder, self.ranks = zygote, recipe, folder, ranks
        self.rng = random.Random(seed)
        self.tally = Tally()
        death = self.fit(folder / "whole", [None] * ranks)
        assert death.statuses == [0] * ranks, death.log
        (self.whole,) = finished_runs(folder / "whole")
        self.operations = len(death.operations)
        self.calls = sum(not name.startswith("write ") for name in death.operations)
        self.steps = load(self.whole / "checkpoints" / "last.ckpt")["global_step"]
        self.left = 1.0  # share of the run that is still to come

    def fit(self, out: Path, kills: list[Kill | None], *, together: bool = False) -> Death:
        """Start the recipe, or go on with it."""
        args = ["--recipe", str(self.recipe), "--resume", "auto"]
        return self.zygote.fit(out, args, kills, together=together)

    def at_a_step(self) -> Kill:
        """Draw a step to be killed at."""
        hook = self.rng.choice(HOOKS)
        calls = {"lr_scheduler_step": self.steps, "on_before_optimizer_step": self.steps,
                 "on_train_epoch_end": 2, "on_validation_epoch_end": 2}  # fmt: skip
        return Kill(hook, nth=self._draw(calls.get(hook, 2 * self.steps)))

    def while_saving(self) -> Kill:
        """Draw a moment of a save to be killed at."""
        which = self.rng.random()
        if which < 0.25:
            return Kill(nth=self._draw(self.operations), part=self.rng.random())
        nth = self._draw(self.calls)
        seconds = self.rng.uniform(0, 0.05) if which < 0.5 else None
        return Kill(nth=nth, writes=False, seconds=seconds)

    def _draw(self, count: int) -> int:
        return self.rng.randint(1, max(1, round(count * self.left)))

    def spread(self, kill: Kill) -> tuple[list[Kill | None], bool]:
        """Draw which ranks die; the first one alone saves."""
        kills: list[Kill | None] = [None] * self.ranks
        rank = self.rng.randrange(self.ranks) if kill.hook else 0
        kills[rank] = kill
        return kills, self.rng.random() < 0.5

    def run(self, *, steps: int, moments: int) -> Tally:
        """Kill runs at as many steps and moments of saving as are asked for, in a random order."""
        wanted = [True] * steps + [False] * moments
        self.rng.shuffle(wanted)
        for chain in itertools.count():
            out, history = self.folder / f"chain_{chain}", []
            self.left = 1.0
            while True:
                death = self._go_on(out, wanted, history)
                if any(status in ENDS for status in death.statuses):
                    wanted.pop()
                    self.look(out, history)
                    self.zygote.check_nothing_is_left()
                elif any(death.statuses):
                    self.problem(out, history, f"ended with {death.statuses}:\n{death.log[-3000:]}")
                    break
                else:  # it came to its end before the next kill
                    self.compare(out, history)
                    break
            shutil.rmtree(out)
            if not wanted:
                break
        self.zygote.check_nothing_is_left(wait=True)
        return self.tally

    def _go_on(self, out: Path, wanted: list[bool], history: list[str]) -> Death:
        """Start a run or go on with it, and kill it where one more kill is wanted."""
        if not wanted:
            return self.fit(out, [None] * self.ranks)
        kill = self.at_a_step() if wanted[-1] else self.while_saving()
        kills, together = self.spread(kill)
        death = self.fit(out, kills, together=together)
        if any(status in ENDS for status in death.statuses):
            self.tally.kills += 1
            self.tally.deaths[kill.hook or ("timer" if kill.seconds else "operation")] += 1
            history.append(f"{kill} of rank {kills.index(kill)}")
            if self.ranks > 1 and not together:
                (other,) = [s for s, k in zip(death.statuses, kills, strict=True) if k is None]
                self.tally.survivors.append((round(death.seconds, 1), other))
                done = other == 0 and self._is_complete(out)  # it had nothing left to do
                if (other <= 0 and not done) or death.seconds > GONE_WITHIN:
                    text = f"after {death.seconds:.1f} s the other rank ended with {other}"
                    self.problem(out, history, f"{text}:\n{death.log[-2000:]}")
        return death

    def _is_complete(self, out: Path) -> bool:
        """Whether the last step of a run is saved."""
        saved = [load(path)["global_step"] for path in out.glob("killed/*/checkpoints/last.ckpt")]
        return self.steps in saved

    def problem(self, out: Path, history: list[str], text: str) -> None:
        """Note what is wrong, and how it came about."""
        self.tally.problems.append(f"{out.name}: {text}\n  after " + "\n        ".join(history))

    def look(self, out: Path, history: list[str]) -> None:
        """See that what a dead run leaves behind can be read."""
        for path in out.glob("killed/*/checkpoints/*.ckpt"):
            try:
                step = load(path)["global_step"]
                self.left = 1 - step / self.steps if path.name == "last.ckpt" else self.left
            except Exception as error:
                self.problem(out, history, f"{path.name} cannot be read: {error}")
        for path in out.glob("killed/*/run.json"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                self.problem(out, history, f"run.json cannot be read: {error}")
        for path in out.glob("killed/*/metrics.csv"):
            rows = path.read_text().splitlines()
            if rows and not rows[0].startswith("step,"):
                self.problem(out, history, f"metrics.csv begins with {rows[0]!r}")

    def compare(self, out: Path, history: list[str]) -> None:
        """Compare a run that came to its end with the unbroken one."""
        self.tally.chains += bool(history)
        found = [text for run in finished_runs(out) for text in unlike(self.whole, run)]
        stray = {path.name for path in out.iterdir()} - {"killed", "last"}
        if stray:
            found.append(f"beside the runs: {sorted(stray)}")
        if found:
            self.problem(out, history, "\n".join(found[:8]) + f"\n({len(found)} in all)")
