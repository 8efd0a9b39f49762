"""Class folders, tables of labels, broken files: what comes out and what is said."""

import ast
import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import ImageFolderDataModule, ImageNetDataModule, files, ledger
from lightning_zoo.datamodules.image_folder import write_fake_image
from lightning_zoo.datamodules.samplers import SampleKey
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import read_image

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LIGHTNING_ZOO_SHARED", ROOT.parent / "shared"))
SMALL = {"workers": 0, "train_crop": 16, "eval_resize": 18, "eval_crop": 16}


@pytest.fixture
def root(tmp_path):
    ImageFolderDataModule.write_fake(tmp_path / "data", classes=3, images=9, size=24)
    return tmp_path / "data"


def module(root, cls=ImageFolderDataModule, *, plan=None, ledger=None, seed=1, **options):
    data = cls(root=str(root), **{**SMALL, **options})
    data.configure(plan or BatchPlan(4, 4, 1, 1), seed=seed, ledger=ledger)
    return data


@pytest.mark.parametrize("cls", [ImageFolderDataModule, ImageNetDataModule])
def test_fake_data_is_read(tmp_path, cls):
    cls.write_fake(tmp_path, classes=3, images=7, size=24)
    data = module(tmp_path, cls, random_erasing=1.0)
    for stage in ("fit", "validate", "test", "predict", "fit"):
        data.setup(stage)
    assert data.num_classes == 3
    assert data.num_train_samples == 7
    assert not data.multilabel
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["erase"].dtype == torch.int64
    assert batch["erase"].shape == (4, 4)
    assert (batch["erase"][:, 2:] > 0).all()
    for name, label in zip(batch["id"], batch["label"], strict=True):
        assert (tmp_path / name).is_file()
        assert name.split("/")[1] == data._label_names()[label]
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        batches = list(loader)
        assert len(loader) == len(batches) == 2
        assert [len(b["id"]) for b in batches] == [4, 3]
        assert set(batches[0]) == {"image", "label", "id"}


def test_batch_without_configure(root):
    data = ImageFolderDataModule(root=str(root), **SMALL)
    data.setup("fit")
    assert len(data.train_dataloader()) == 1
    assert len(next(iter(data.train_dataloader()))["id"]) == 32


def batches(data, epoch=0, rank=0):
    data.setup("fit")
    data.trainer = SimpleNamespace(global_rank=rank, world_size=data.plan.devices)
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return [(batch["id"], batch["image"]) for batch in loader]


@pytest.mark.parametrize("policy", [None, "trivial"])
def test_pixels_do_not_depend_on_workers_and_ranks(root, policy):
    def images(plan, workers, rank=0):
        data = module(root, plan=plan, workers=workers, auto_augment=policy)
        found = batches(data, epoch=2, rank=rank)
        return [(n, i) for names, pixels in found for n, i in zip(names, pixels, strict=True)]

    alone = images(BatchPlan(8, 8, 1, 1), 0)
    two = [images(BatchPlan(8, 2, 2, 2), workers, rank) for workers, rank in ((2, 0), (0, 1))]
    key = lambda pair: (pair[0], pair[1].sum().item())  # noqa: E731
    for a, b in zip(sorted(alone, key=key), sorted(two[0] + two[1], key=key), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])


def test_training_images_as_evaluation_sees_them(root):
    options = {"random_erasing": 1.0, "auto_augment": "rand", "train_views": "eval"}
    data = module(root, **options)
    data.setup("fit")
    calm = {name: image for b in data.train_dataloader() for name, image in by_name(b)}
    again = module(root, seed=2, **options)
    again.setup("fit")
    for name, image in (pair for b in again.train_dataloader() for pair in by_name(b)):
        assert torch.equal(image, calm[name]), "nothing is drawn"
        assert torch.equal(image, data.eval_transform(read_image(f"{root}/{name}")))
    assert "erase" not in next(iter(data.train_dataloader()))


def by_name(batch):
    return zip(batch["id"], batch["image"], strict=True)


def test_epochs_and_seeds_change_pixels(root):
    def first(seed, epoch):
        data = module(root, seed=seed)
        data.setup("fit")
        return data.datasets["train"][SampleKey(epoch, 0)]["image"]

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(1, 1))
    assert not torch.equal(first(1, 0), first(2, 0))


def test_loader_state_counts_what_was_yielded(root):
    for workers in (0, 2):
        data = module(root, workers=workers, plan=BatchPlan(2, 2, 1, 1))
        data.setup("fit")
        whole = [batch["id"] for batch in data.train_dataloader()]
        loader = data.train_dataloader()
        iterator = iter(loader)
        assert [next(iterator)["id"] for _ in range(2)] == whole[:2]
        state = json.loads(json.dumps(loader.state_dict()))
        assert (state["epoch"], state["batches"]) == (0, 2)
        again = data.train_dataloader()
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert len(again) == len(whole) == 5
        assert [batch["id"] for batch in again] == whole[2:]
        assert again.state_dict()["batches"] == 5
        assert [batch["id"] for batch in again] == whole
        # an iterator dropped in mid-epoch
        assert [batch["id"] for batch in loader] == whole
        del iterator


# layout


def test_missing_root(tmp_path):
    for cls, source in (
        (ImageNetDataModule, "prepare_imagenet.py"),
        (ImageFolderDataModule, "own"),
    ):
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(ZooError) as caught:
                module(path, cls).setup("fit")
            text = str(caught.value)
            assert str(path) in text
            assert "train/" in text
            assert source in text
            assert "fit --recipe NAME --smoke" in text
            assert "python -m lightning_zoo demo" in text


def test_splits(root):
    (root / "val").rename(root / "elsewhere")
    with pytest.raises(ZooError, match=r"no folder '.*val' \(data.val; null goes without it\)"):
        module(root).setup("fit")
    without = module(root, val=None)
    without.setup("fit")
    assert without.val_dataloader() == []
    other = module(root, val="elsewhere")
    other.setup("fit")
    assert len(list(other.val_dataloader())) == 3
    (root / "test").rename(root / "gone")
    with pytest.raises(ZooError, match=r"data.test"):
        other.setup("test")
    other.setup("predict")
    assert next(iter(other.predict_dataloader()))["id"][0].startswith("elsewhere/")


def test_extensions_and_hidden_files(root):
    rng = np.random.default_rng(0)
    for name in ("a.JPG", "b.jpeg", "c.png", "d.WebP", "e.bmp", "f.tif", "deep/er/g.tiff"):
        path = root / "train" / "class_0" / name
        write_fake_image(path.with_suffix(".png"), 0, 20, rng)
        path.with_suffix(".png").rename(path)  # the content decides how it is read
    for name in (".hidden.jpg", "notes.txt", "._a.jpg"):
        (root / "train" / "class_0" / name).write_bytes(b"x")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    data = module(root)
    data.setup("fit")
    assert data.class_names == ["class_0", "class_1", "class_2"]
    assert data.num_train_samples == 16
    names = [data.datasets["train"].name(i) for i in range(16)]
    assert "train/class_0/deep/er/g.tiff" in names
    assert names == sorted(names)
    for batch in data.train_dataloader():
        assert batch["image"].shape[1:] == (3, 16, 16)


def test_links_in_a_circle(root):
    (root / "train" / "class_0" / "loop").symlink_to(root / "train" / "class_0")
    assert len(files.images_below(root / "train" / "class_0")) <= 6


def test_classes_that_do_not_fit(root):
    for path in (root / "val" / "class_1").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="no image of class class_1 in '.*val'"):
        module(root).setup("fit")
    (root / "val" / "class_2").rename(root / "val" / "clas_2")
    with pytest.raises(ZooError, match=r"class clas_2 .* not among the 3 .*did you mean class_2"):
        module(root).setup("fit")
    (root / "train" / "empty").mkdir()
    with pytest.raises(ZooError, match=r"no image of class empty in '.*train'"):
        module(root).setup("fit")


def test_imagenet_names(tmp_path):
    for i in range(1000):
        (tmp_path / "train" / f"n{i:08d}").mkdir(parents=True)
    names = ImageNetDataModule(root=str(tmp_path)).class_names
    assert names[0] == "tench"
    assert len(names) == 1000
    (tmp_path / "train" / "n00000007").rmdir()
    assert ImageNetDataModule(root=str(tmp_path)).class_names[0] == "n00000000"


def test_file_names():
    names = ["a/b.jpg", "", "ä/ö.png", "z" * 300]
    index = files.FileNames(names)
    assert list(index) == names
    assert len(index) == 4
    assert list(pickle.loads(pickle.dumps(index))) == names
    with pytest.raises(IndexError):
        index[4]
    many = files.FileNames(f"n01440764/n01440764_{i}.JPEG" for i in range(10_000))
    assert len(pickle.dumps(many)) < 10_000 * 40  # bytes; a list of strings takes 85 and more


@pytest.mark.skipif(not (SHARED / "data/ants_bees").is_dir(), reason="no ../shared/data/ants_bees")
def test_ants_and_bees():
    data = module(SHARED / "data/ants_bees")
    data.setup("fit")
    assert data.class_names == ["ants", "bees"]
    assert sum(len(batch["id"]) for batch in data.val_dataloader()) == 153


# broken files


@pytest.fixture
def broken(root):
    for split in ("train", "val"):
        folder = root / split / "class_1"
        for path in sorted(folder.iterdir())[:2]:
            path.write_bytes(path.read_bytes()[:200])
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_refuse(broken, workers):
    data = module(broken, workers=workers)
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        with pytest.raises(ZooError) as caught:
            list(loader)
        text = str(caught.value)
        assert text.startswith("cannot read the image")
        assert "class_1" in text
        assert "--data.on_error skip" in text
        assert "Traceback" not in text


@pytest.mark.parametrize("workers", [0, 2])
def test_skip(broken, tmp_path, workers):
    data = module(
        broken,
        workers=workers,
        on_error="skip",
        ledger=tmp_path / "run" / "bad.jsonl",
        eval_batch=1,
    )
    data.setup("fit")
    bad = {f"train/class_1/train_{i:04d}.jpg" for i in (1, 4)}
    bad |= {f"val/class_1/val_{i:04d}.jpg" for i in (1, 4)}
    for epoch in (0, 1):
        found = batches(data, epoch)
        assert [len(names) for names, _ in found] == [4, 4, 4]  # replaced
        names = {name for names, _ in found for name in names}
        assert len(names) == 7
        assert not names & bad
    evaluated = list(data.val_dataloader())
    assert len(evaluated) == 7  # batches of one broken file are not yielded
    entries = data.read_ledger()
    assert {entry["file"] for entry in entries} == bad
    assert len(entries) == 4
    assert all("truncated" in e["error"].lower() for e in entries)
    assert {entry["split"] for entry in entries} == {"train", "val"}
    assert len((tmp_path / "run" / "bad.jsonl").read_text().splitlines()) == 4


def test_replacement_does_not_depend_on_workers(broken, tmp_path):
    runs = [batches(module(broken, workers=w, on_error="skip")) for w in (0, 2)]
    for (names, pixels), (others, same) in zip(*runs, strict=True):
        assert names == others
        assert torch.equal(pixels, same)


def test_nothing_readable(root):
    for path in (root / "train").rglob("*.jpg"):
        path.write_bytes(b"")
    data = module(root, on_error="skip")
    data.setup("fit")
    with pytest.raises(ZooError, match="none of the 9 training files"):
        list(data.train_dataloader())


def test_many_processes_write_the_ledger(tmp_path):
    path = tmp_path / "bad.jsonl"
    code = (
        "import sys; from pathlib import Path; from lightning_zoo.datamodules import ledger\n"
        "for i in range(int(sys.argv[2]), int(sys.argv[2]) + 40):\n"
        "    ledger.append_once(Path(sys.argv[1]), file=f'f{i}', error='x' * 50, split='train')"
    )
    command = [sys.executable, "-c", code, str(path)]
    workers = [subprocess.Popen([*command, str(start)], cwd=ROOT) for start in (0, 20)]
    assert [worker.wait() for worker in workers] == [0, 0]
    lines = [json.loads(line)["file"] for line in path.read_text().splitlines()]
    assert sorted(lines, key=lambda f: int(f[1:])) == [f"f{i}" for i in range(60)]
    with path.open("a") as file:
        file.write('{"file": "half')
    assert len(ledger.read(path)) == 60


# tables of labels


def table(root, text, name="labels.csv", **options):
    (root / name).write_text(text)
    return module(root, labels_csv=options.pop("labels_csv", name), **options)


A, B, V = "train/class_0/train_0000.jpg", "train/class_1/train_0001.jpg", "val/class_0/val_0000.jpg"


def labels(data, split):
    data.setup("fit")
    return data.datasets[split]


def test_columns_of_zero_and_one(root):
    data = table(root, f"file,split,cat,dog\n{A},train,1,1\n{B},train,0,0\n{V},val,0,1\n")
    data.setup("fit")
    assert data.multilabel
    assert data.class_names == ["cat", "dog"]
    assert data.num_train_samples == 2
    (batch,) = data.val_dataloader()
    assert batch["label"].dtype == torch.float32
    assert batch["label"].tolist() == [[0.0, 1.0]]
    assert batch["id"] == [V]
    assert data.datasets["train"].labels.tolist() == [[1, 1], [0, 0]]
    assert next(iter(data.train_dataloader()))["label"].shape == (4, 2)


def test_names_in_one_column_and_a_table_for_each_split(root):
    (root / "val.csv").write_text(f"file,labels\n{V},dog\n")
    data = table(root, f"file,labels\n{A},dog; ant\n{B},\n", "train.csv", labels_csv="{split}.csv")
    data.setup("fit")
    assert data.class_names == ["ant", "dog"]
    assert data.datasets["train"].labels.tolist() == [[1, 1], [0, 0]]
    assert data.datasets["val"].labels.tolist() == [[0, 1]]
    data.setup("predict")
    assert next(iter(data.predict_dataloader()))["id"] == [V]


HEAD = "file,split,cat,dog\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,cat\n", "no column 'file'; it has name, cat"),
        ("", "no column 'file'"),
        (f"file,cat\n{A},1\n", "no column 'split'"),
        (HEAD, "no row of the split 'train'"),
        (f"{HEAD}none.jpg,train,1,0\n", "row 2: there is no file 'none.jpg'"),
        (f"{HEAD}{A},train,1,0\n{A},val,1,0\n", "row 3: the file .* stands in row 2 already"),
        (f"{HEAD}{A},train,1,yes\n", "row 2: dog is 'yes'; expected 0 or 1"),
        (f"{HEAD}{A},train,1\n", "row 2: expected 4 columns"),
        (f"{HEAD}{A},trian,1,0\n", "split is 'trian'"),
        (f"{HEAD}../x.jpg,train,1,0\n", "no path within"),
        (f"file,split,labels\n{A},train,cat\n{V},val,cta\n", "'cta' is no class .* mean cat"),
    ],
)
def test_tables_that_are_wrong(root, text, message):
    with pytest.raises(ZooError, match=message):
        table(root, text).setup("fit")


def test_missing_table_and_other_classes(root):
    with pytest.raises(ZooError, match=r"no table .*none\.csv"):
        module(root, labels_csv="none.csv").setup("fit")
    (root / "val.csv").write_text(f"file,cat\n{V},1\n")
    data = table(root, f"file,cat,dog\n{A},1,0\n", "train.csv", labels_csv="{split}.csv")
    with pytest.raises(ZooError, match="other classes than the training table: dog"):
        data.setup("fit")


# arguments


@pytest.mark.parametrize("cls", [ImageFolderDataModule, ImageNetDataModule])
def test_signatures_can_be_linted(cls):
    """Recipes are checked against the source alone, so types are simple and nothing is caught."""
    simple = {"int", "float", "str", "bool", "list", "tuple", "Literal", "None", "Any"}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        tree = ast.parse(str(parameter.annotation))
        assert {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} <= simple
        assert f"{parameter.name}:" in cls.__doc__


def test_albumentations(root):
    from lightning_zoo.transforms.classification import import_albumentations

    albumentations = import_albumentations()
    transforms = [albumentations.HorizontalFlip(p=0.5), albumentations.RandomCrop(16, 16, p=1.0)]
    data = module(root, albumentations=transforms)
    data.setup("fit")
    dataset = data.datasets["train"]
    first = [dataset[SampleKey(0, i)]["image"] for i in range(9)]
    again = [dataset[SampleKey(0, i)]["image"] for i in reversed(range(9))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    later = [dataset[SampleKey(1, i)]["image"] for i in range(9)]
    assert not all(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    workers = batches(module(root, albumentations=transforms, workers=2))
    for (names, pixels), (others, same) in zip(
        batches(module(root, albumentations=transforms)), workers, strict=True
    ):
        assert names == others
        assert torch.equal(pixels, same)
    wrong = module(root, albumentations=[albumentations.Normalize()])
    wrong.setup("fit")
    with pytest.raises(ZooError, match="leave out Normalize"):
        next(iter(wrong.train_dataloader()))
    with pytest.raises(ZooError, match="set one of the two"):
        module(root, albumentations=transforms, auto_augment="rand")


def test_the_agpl_distribution_is_refused(monkeypatch):
    from importlib import metadata

    from lightning_zoo.transforms import classification

    monkeypatch.setattr(metadata, "distribution", lambda name: None)
    with pytest.raises(ZooError, match="AGPL"):
        classification.import_albumentations()


def test_import_is_light():
    code = "import sys, lightning_zoo.datamodules; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "cv2", "lightning", "numpy"} & set(out.stdout.split())


def test_bad_arguments(root):
    with pytest.raises(ZooError, match="unknown on_error 'ignore'"):
        module(root, on_error="ignore")
    with pytest.raises(ZooError, match="random_erasing is 3"):
        module(root, random_erasing=3.0)
    data = module(root, workers=-1)
    data.setup("fit")
    with pytest.raises(ZooError, match="workers is -1"):
        data.train_dataloader()
    data = module(root, plan=BatchPlan(8, 1, 8, 1))
    data.setup("fit")
    with pytest.raises(ZooError, match="planned for 8 devices and 1 train"):
        data.train_dataloader()
