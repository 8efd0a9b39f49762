"""A run that is killed in mid-epoch and continued sees the batches that the unbroken run sees."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import ImageFolderDataModule
from lightning_zoo.errors import ZooError

EPOCHS = 3
BATCHES = 4  # of one epoch


class Net(LightningModule):
    """One weight; the batches it is shown are written down."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(
            (self.current_epoch, batch_idx, tuple(batch["id"]), batch["image"].clone())
        )
        pixels = batch["image"].float().mean(dim=(0, 2, 3)) / 255
        return ((self.weight - pixels) ** 2).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", batch["image"].float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class SaveAt(Callback):
    """Save in ``hook`` after batch ``batch`` of ``epoch``, and stop there as a kill would."""

    def __init__(self, path, hook, epoch, batch):
        self.path, self.epoch, self.batch = path, epoch, batch
        setattr(self, hook, self.save)

    def save(self, trainer, module, *args):
        last = module.seen[-1][:2] if module.seen else None
        if last == (self.epoch, self.batch) and not Path(self.path).exists():
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def data(root, workers, accumulate):
    module = ImageFolderDataModule(
        root=str(root), workers=workers, train_crop=16, eval_crop=16, eval_resize=16
    )
    module.configure(BatchPlan(4 * accumulate, 4, 1, accumulate), seed=5)
    return module


def fit(net, data, tmp_path, *, callbacks=(), ckpt_path=None, validate=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
        trainer = Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            use_distributed_sampler=False,
            accumulate_grad_batches=data.plan.accumulate,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validate else 0,
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
        )
        # a kill: Lightning ends the process's run by SystemExit after KeyboardInterrupt
        try:
            trainer.fit(net, data, ckpt_path=ckpt_path)
        except (KeyboardInterrupt, SystemExit):
            return trainer
    return trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    ImageFolderDataModule.write_fake(root, classes=2, images=15, size=24)
    return root


@pytest.fixture(scope="module")
def unbroken(root, tmp_path_factory):
    runs = {}
    for accumulate in (1, 2):
        net = Net()
        fit(net, data(root, 0, accumulate), tmp_path_factory.mktemp("unbroken"))
        assert len(net.seen) == EPOCHS * BATCHES
        runs[accumulate] = net
    return runs


def check(seen, expected):
    assert [s[:3] for s in seen] == [s[:3] for s in expected]
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.equal(ours[3], theirs[3])


def test_epochs_differ(unbroken):
    orders = [[s[2] for s in unbroken[1].seen if s[0] == epoch] for epoch in range(EPOCHS)]
    assert orders[0] != orders[1] != orders[2]
    for order in orders:
        assert len({name for names in order for name in names}) == 15  # of 16 places


# between two steps only: the gradients of half a step are in no checkpoint
@pytest.mark.parametrize(
    ("epoch", "batch", "accumulate", "workers"),
    [(epoch, batch, 1, 0) for epoch in (0, 1) for batch in (0, 1, 2, 3)]
    + [(epoch, batch, 2, 0) for epoch in (0, 1) for batch in (1, 3)]
    + [(1, 0, 1, 2), (1, 2, 1, 2), (1, 3, 1, 2), (0, 1, 2, 2), (0, 3, 2, 2)],
)
def test_killed_after_a_batch(root, unbroken, tmp_path, epoch, batch, accumulate, workers):
    path = tmp_path / "mid.ckpt"
    first = Net()
    stop = SaveAt(path, "on_train_batch_end", epoch, batch)
    fit(first, data(root, workers, accumulate), tmp_path, callbacks=[stop])
    assert path.exists()
    done = epoch * BATCHES + batch + 1
    second = Net()
    fit(second, data(root, workers, accumulate), tmp_path, ckpt_path=path)
    check(first.seen + second.seen, unbroken[accumulate].seen)
    assert len(first.seen) == done
    assert torch.equal(second.weight, unbroken[accumulate].weight)


# not on_train_epoch_start: Lightning 2.6.6 takes a checkpoint from there for one of the epoch's end
@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_epoch_end"])
@pytest.mark.parametrize("validate", [True, False])
def test_killed_between_epochs(root, unbroken, tmp_path, hook, validate):
    if hook == "on_validation_end" and not validate:
        pytest.skip("no validation")
    path = tmp_path / "end.ckpt"
    first, second = Net(), Net()
    stop = SaveAt(path, hook, 0, BATCHES - 1)
    fit(first, data(root, 0, 1), tmp_path, callbacks=[stop], validate=validate)
    assert path.exists()
    fit(second, data(root, 0, 1), tmp_path, ckpt_path=path, validate=validate)
    check(first.seen + second.seen, unbroken[1].seen)
    assert torch.equal(second.weight, unbroken[1].weight)


def test_another_batch_is_refused_within_an_epoch(root, tmp_path):
    path = tmp_path / "mid.ckpt"
    stop = SaveAt(path, "on_train_batch_end", 0, 1)
    fit(Net(), data(root, 0, 1), tmp_path, callbacks=[stop])
    with pytest.raises(ZooError, match="size 4 then and 8 now"):
        fit(Net(), data(root, 0, 2), tmp_path, ckpt_path=path)
