"""What every data set shares: splits, loaders, broken files, and the answer to missing data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.loader import (
    EvalLoader,
    Refused,
    ResumableLoader,
    Unmanaged,
    collate,
)
from lightning_zoo.datamodules.samplers import EvalSampler, SampleKey, TrainSampler, sample_rng
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import DecodeError

Split = Literal["train", "val", "test"]
OnError = Literal["refuse", "skip"]

DEFAULT_PER_DEVICE = 32
WITHOUT_DATA = (
    "Without data, try `python -m lightning_zoo fit --recipe NAME --smoke` "
    "or `python -m lightning_zoo demo`."
)


class ZooDataset(Dataset[Any]):
    """Samples of one split, indexed by :class:`SampleKey`.

    A subclass defines ``__len__``, :meth:`name` and :meth:`load` (or :meth:`load_key`); this class
    draws the random numbers and deals with broken files. Indexing returns the sample, None where it
    was skipped, or :class:`Refused`.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.

    Attributes:
        split: As above; only ``"train"`` replaces skipped samples.
        seed: Seed of the run.
        on_error: ``"refuse"`` stops at a broken file; ``"skip"`` names it in the ledger and takes
            the next readable sample in training, or leaves it out in evaluation.
        ledger: JSON lines file that names the broken files, or None for none.
    """

    def __init__(self, split: Split) -> None:
        self.split: Split = split
        self.seed = 0
        self.on_error: OnError = "refuse"
        self.ledger: Path | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Return the sample's ``id``: its path relative to the root, with forward slashes."""
        raise NotImplementedError

    def load(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one sample; all randomness comes from ``rng``.

        Raises:
            DecodeError: If the file cannot be read.
        """
        raise NotImplementedError

    def load_key(self, key: SampleKey, rng: np.random.Generator) -> dict[str, Any]:
        """Return the sample of a key, for data sets whose samples change with the epoch.

        Raises:
            DecodeError: If the file cannot be read.
        """
        return self.load(key.index, rng)

    def __getitem__(self, key: SampleKey) -> dict[str, Any] | Refused | None:
        for index in range(key.index, key.index + len(self)):
            index %= len(self)
            try:
                return self.load_key(key._replace(index=index), sample_rng(self.seed, key))
            except DecodeError as error:
                if self.on_error == "refuse":
                    return Refused(
                        f"{error}; mend or remove the file, or go on without it by --data.on_error "
                        "skip (it is then named in the run's ledger)"
                    )
                if self.ledger is not None:
                    ledgers.append_once(
                        self.ledger, file=self.name(index), error=error.reason, split=self.split
                    )
                if self.split != "train":
                    return None
            except ZooError as error:  # a mistake in the arguments that shows itself here
                return Refused(str(error))
        return Refused(f"none of the {len(self)} training files can be read")


class ZooDataModule(LightningDataModule):
    """Splits and loaders of one data set.

    A subclass sets :attr:`LAYOUT` and :attr:`SOURCE` and defines :meth:`make_dataset`,
    :attr:`class_names` and :meth:`write_fake`. The engine calls :meth:`configure` before ``setup``;
    without it, one device trains with batches of 32.

    Args:
        root: Folder of the data.
        workers: Processes of each loader, at most one a core; 0 loads in the main process.
        on_error: What happens at a broken file, ``"refuse"`` or ``"skip"`` (see ZooDataset).
        drop_last: Drop the incomplete last step of an epoch instead of filling it from the start of
            the same order.
        eval_batch: Images of one batch of evaluation on one device; None: as in training.
        repeats: Draws of each training image in a row, see :class:`TrainSampler`.
    """

    LAYOUT: ClassVar[str] = ""
    SOURCE: ClassVar[str] = "bring your own files"

    def __init__(
        self,
        *,
        root: str,
        workers: int = 4,
        on_error: OnError = "refuse",
        drop_last: bool = False,
        eval_batch: int | None = None,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        if on_error not in ("refuse", "skip"):
            raise ZooError(f"unknown on_error {on_error!r}; expected refuse or skip")
        self.root = Path(root)
        self.workers = workers
        self.on_error: OnError = on_error
        self.drop_last = drop_last
        self.eval_batch = eval_batch
        self.repeats = repeats
        self.plan: BatchPlan | None = None
        self.seed = 0
        self.ledger: Path | None = None
        self.datasets: dict[Split, ZooDataset] = {}
        # a rank without a sample of its own is right: evaluation pads nothing
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def make_dataset(self, split: Split) -> ZooDataset | None:
        """Return the samples of a split; None where the split was switched off.

        Raises:
            ZooError: If the split's files are missing.
        """
        raise NotImplementedError

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        raise NotImplementedError

    @staticmethod
    def write_fake(
        root: Path, *, classes: int = 4, images: int = 8, size: int = 64, seed: int = 0
    ) -> None:
        """Write a tiny data set in the real layout.

        Args:
            root: Folder to fill; made if it is missing.
            classes: Number of classes.
            images: Images of each split.
            size: About the side of an image in pixels.
            seed: Seed of the pixels.
        """
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels or none; labels are then float32 (N, C)."""
        return False

    @property
    def num_train_samples(self) -> int:
        """Number of training samples of one epoch."""
        return len(self._dataset("train", needed_for="training"))

    @property
    def rank(self) -> int:
        """Index of this process among those that share the work."""
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def world_size(self) -> int:
        """Number of processes that share the work."""
        return self.trainer.world_size if self.trainer is not None else 1

    def configure(self, plan: BatchPlan, *, seed: int, ledger: Path | None = None) -> None:
        """Take the run's settings; called before ``setup``, and again only between runs.

        Args:
            plan: How the images of a step are spread.
            seed: Seed of orders and augmentations.
            ledger: JSON lines file for the names of broken files.
        """
        self.plan, self.seed, self.ledger = plan, seed, ledger
        for dataset in self.datasets.values():
            self._prepare(dataset)

    def setup(self, stage: str) -> None:
        """Build the splits that a stage needs: ``fit``, ``validate``, ``test`` or ``predict``.

        Calling it again changes nothing.

        Raises:
            ZooError: If the data is missing or not laid out as :attr:`LAYOUT` says.
        """
        self.check_root()
        for split in self.splits(stage):
            if split not in self.datasets:
                dataset = self.make_dataset(split)
                if dataset is not None:
                    self._prepare(dataset)
                    self.datasets[split] = dataset

    def splits(self, stage: str) -> Sequence[Split]:
        """Return the splits that a stage reads."""
        table: dict[str, Sequence[Split]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("test",),
        }
        return table[stage]

    def check_root(self) -> None:
        """Raise the error that helps where the root is missing or empty."""
        if not self.root.is_dir() or not any(self.root.iterdir()):
            raise self.missing(f"no data in {str(self.root)!r} (data.root)")

    def missing(self, what: str) -> ZooError:
        """Return the error for missing data: what, the layout expected, where from, what else."""
        layout = "\n".join(f"  {line}" for line in self.LAYOUT.strip("\n").splitlines())
        return ZooError(f"{what}; expected this layout ({self.SOURCE}):\n{layout}\n{WITHOUT_DATA}")

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training batches, which can be stopped and continued anywhere.

        Raises:
            ZooError: If the plan was made for another number of devices than the trainer has.
        """
        dataset = self._dataset("train", needed_for="training")
        plan = self._plan()
        if plan.devices != self.world_size:
            raise ZooError(
                f"the batch was planned for {plan.devices} devices and {self.world_size} train; "
                "set --trainer.devices to the plan's number"
            )
        return ResumableLoader(
            dataset,
            self.make_sampler(dataset, plan),
            workers=self.workers,
            collate_fn=self.collate_train,
        )

    def make_sampler(self, dataset: ZooDataset, plan: BatchPlan) -> TrainSampler:
        """Return the order of this rank's training samples."""
        return TrainSampler(
            len(dataset),
            plan,
            seed=self.seed,
            rank=self.rank,
            drop_last=self.drop_last,
            repeats=self.repeats,
        )

    def val_dataloader(self) -> EvalLoader | list[Any]:
        """Return the loader of validation batches, each sample once over all ranks."""
        if "val" not in self.datasets:
            return []
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """Return the loader of test batches, each sample once over all ranks."""
        return self._eval_loader(self.splits("test")[-1])

    def predict_dataloader(self) -> Unmanaged:
        """Return the batches to predict, those of the split that ``splits("predict")`` names."""
        return Unmanaged(self._eval_loader(self.splits("predict")[-1]))

    @staticmethod
    def collate_train(samples: list[Any]) -> Any:
        """Join samples into a training batch."""
        return collate(samples)

    @staticmethod
    def collate_eval(samples: list[Any]) -> Any:
        """Join samples into a batch of evaluation."""
        return collate(samples)

    def read_ledger(self) -> list[dict[str, Any]]:
        """Return one entry (``file``, ``error``, ``split``) for each file that was skipped."""
        return [] if self.ledger is None else ledgers.read(self.ledger)

    def _plan(self) -> BatchPlan:
        if self.plan is not None:
            return self.plan
        devices = self.world_size
        return BatchPlan(devices * DEFAULT_PER_DEVICE, DEFAULT_PER_DEVICE, devices, 1)

    def _prepare(self, dataset: ZooDataset) -> None:
        dataset.seed = self.seed
        dataset.on_error = self.on_error
        dataset.ledger = self.ledger

    def _dataset(self, split: Split, *, needed_for: str) -> ZooDataset:
        if split not in self.datasets:
            self.check_root()
            dataset = self.make_dataset(split)
            if dataset is None:
                raise ZooError(f"--data.{split} is null, and {needed_for} needs that split")
            self._prepare(dataset)
            self.datasets[split] = dataset
        return self.datasets[split]

    def _eval_loader(self, split: Split) -> EvalLoader:
        dataset = self._dataset(split, needed_for="evaluation")
        size = self.eval_batch if self.eval_batch is not None else self._plan().per_device
        sampler = EvalSampler(len(dataset), size, rank=self.rank, devices=self.world_size)
        return EvalLoader(dataset, sampler, workers=self.workers, collate_fn=self.collate_eval)
