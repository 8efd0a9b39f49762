"""Samples and batches of COCO's format: what is filtered, what evaluation gets, what is refused."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import CocoDataModule, SampleKey
from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.coco_dataset import in_one_memory
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import read_image

# pycocotools 2.0.11 defines __array__ without the copy keyword of NumPy 2:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COCO100 = Path(__file__).parents[3] / "shared" / "data" / "coco100"
PLAN = BatchPlan(4, 2, 1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    CocoDataModule.write_fake(root, classes=5, images=16, size=96)
    return root


@pytest.fixture
def copy(root, tmp_path):
    """Return a copy of the data whose files may be changed."""
    for path in root.rglob("*.*"):
        target = tmp_path / "data" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "data"


def module(root, stage="fit", **options):
    data = CocoDataModule(root=str(root), **{"workers": 0, **options})
    data.configure(PLAN, seed=1)
    if stage:
        data.setup(stage)
    return data


def change(root, edit, file="instances_train2017"):
    path = root / "annotations" / f"{file}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def oracle(root, file):
    """Return pycocotools' own index, which speaks while it is made."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / "annotations" / f"{file}.json"))


@pytest.mark.parametrize("target", ["boxes", "masks", "keypoints"])
def test_batches(root, target):
    data = module(root, target=target)
    seen = 0
    for batch in data.train_dataloader():
        assert set(batch) == {"image", "target", "id"}
        assert len(batch["image"]) == len(batch["target"]) == len(batch["id"]) == 2
        for image, found, number in zip(*batch.values(), strict=True):
            seen += 1
            count, (height, width) = len(found["boxes"]), image.shape[1:]
            assert image.dtype == torch.uint8
            assert image.is_contiguous()
            expected = {
                "boxes": (torch.float32, (count, 4)),
                "labels": (torch.int64, (count,)),
                "area": (torch.float32, (count,)),
                "iscrowd": (torch.int64, (count,)),
            }
            if target == "masks":
                expected["masks"] = (torch.uint8, (count, height, width))
            if target == "keypoints":
                expected["keypoints"] = (torch.float32, (count, 17, 3))
            assert set(found) == {"id", *expected}
            assert found["id"] == number
            assert type(number) is int
            for name, (dtype, shape) in expected.items():
                assert (found[name].dtype, tuple(found[name].shape)) == (dtype, shape)
            assert (found["boxes"][:, 2:] > found["boxes"][:, :2]).all()
            assert not found["iscrowd"].any()
    assert seen == 16
    (batch, *_), count = data.val_dataloader(), len(data.val_dataloader())
    assert count == 16
    assert len(batch["image"]) == 1


@pytest.mark.parametrize("target", ["masks", "keypoints"])
def test_evaluation_against_pycocotools(root, target):
    data = module(root, "validate", target=target)
    coco = oracle(root, f"{'instances' if target == 'masks' else 'person_keypoints'}_val2017")
    of_label = data.category_ids
    crowds = 0
    for batch in data.val_dataloader():
        (image,), (found,), (number,) = batch.values()
        info, records = coco.imgs[number], coco.imgToAnns[number]
        pixels = read_image(root / "val2017" / info["file_name"])
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
        assert [r["id"] for r in found["annotations"]] == [r["id"] for r in records]
        crowds += int(found["iscrowd"].sum())
        for i, (ours, theirs) in enumerate(zip(found["annotations"], records, strict=True)):
            assert of_label[ours["category_id"]] == theirs["category_id"]
            assert ours["bbox"] == theirs["bbox"]
            assert (ours["area"], ours["iscrowd"]) == (theirs["area"], theirs["iscrowd"])
            assert ours["image_id"] == number
            assert int(found["labels"][i]) == ours["category_id"]
            if target == "masks":
                rle = coco.annToRLE(theirs)
                assert coco_mask.decode(ours["segmentation"]).tolist() == found["masks"][i].tolist()
                assert np.array_equal(coco_mask.decode(rle), found["masks"][i].numpy())
            else:
                assert ours["keypoints"] == theirs["keypoints"]
                assert ours["num_keypoints"] == theirs["num_keypoints"]
                assert found["keypoints"][i].flatten().tolist() == pytest.approx(
                    theirs["keypoints"]
                )
    assert (crowds > 0) == (target == "masks")


def test_the_fake_is_what_it_shows(root):
    kinds, objects = set(), []
    for split in ("train2017", "val2017"):
        coco = oracle(root, f"instances_{split}")
        for number, info in coco.imgs.items():
            objects.append(len(coco.imgToAnns[number]))
            pixels = read_image(root / split / info["file_name"]).astype(int)
            for record in coco.imgToAnns[number]:
                kinds.add((type(record["segmentation"]), record["iscrowd"],
                           isinstance(record["segmentation"], dict)
                           and type(record["segmentation"]["counts"])))  # fmt: skip
                mask = coco.annToMask(record)
                x, y, w, h = (int(n) for n in record["bbox"])
                ys, xs = np.nonzero(mask)
                assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x, y, x + w, y + h)
                assert mask.sum() == record["area"]
                inner = np.median(pixels[mask == 1], axis=0)
                frame = np.median(pixels.reshape(-1, 3), axis=0)
                assert np.abs(inner - frame).sum() > 60  # painted where the mask is
    assert kinds == {(list, 0, False), (dict, 0, str), (dict, 1, list)}
    assert objects.count(0) == 4
    ids = [c["id"] for c in coco.cats.values()]
    assert ids == [2, 5, 8, 11, 14]


def test_labels(root, copy):
    data = module(root, stage=None)
    assert data.class_names == ["__background__", "disc", "square", "triangle", "diamond", "figure"]
    assert data.category_ids == [None, 2, 5, 8, 11, 14]
    assert data.num_classes == 6
    data = module(root, stage=None, labels="category_ids")
    assert data.num_classes == 15
    assert data.class_names[:3] == ["__background__", "N/A", "disc"]
    assert data.category_ids[14] == 14
    data = module(root, stage=None, target="keypoints")
    assert data.class_names == ["__background__", "person"]
    assert data.num_keypoints == len(data.skeleton) == 17
    assert module(root, stage=None).num_keypoints == 0

    def coco_names(content):
        names = {2: "bicycle", 5: "airplane", 8: "truck", 11: "fire hydrant", 14: "parking meter"}
        for category in content["categories"]:
            category["name"] = names[category["id"]]

    change(copy, coco_names)
    data = module(copy, stage=None)
    assert data.num_classes == 91
    assert data.class_names[11:15] == ["fire hydrant", "N/A", "N/A", "parking meter"]
    assert module(copy, stage=None, labels="contiguous").num_classes == 6
    with pytest.raises(ZooError, match="calls it 'bicycle'"):
        module(copy)  # val has other names

    def zero(content):
        content["categories"][0]["id"] = 0

    change(copy, zero)
    assert module(copy, stage=None).num_classes == 6
    with pytest.raises(ZooError, match=r"ids run from 0 to 14; .*--data.labels contiguous"):
        module(copy, stage=None, labels="category_ids").num_classes  # noqa: B018


def test_the_training_filter(copy):
    data = module(copy)
    assert data.num_train_samples == 14  # two images have no object
    assert len(data.datasets["val"]) == 16

    def edit(content):
        content["images"] += [{**content["images"][0], "id": 5 + i} for i in range(3)]
        first = content["annotations"][0]
        for i, box in enumerate(([3, 3, 1, 20], [3, 3, 2, 2])):
            content["annotations"].append({**first, "id": 9000 + i, "image_id": 5 + i, "bbox": box})

    change(copy, edit)
    data = module(copy)
    ids = data.datasets["train"].index.image_ids[data.datasets["train"].images].tolist()
    assert len(ids) == 15
    assert 6 in ids
    assert 5 not in ids

    def few(content):
        content["annotations"][0]["keypoints"][9:] = [0] * 42

    change(copy, few, "person_keypoints_train2017")
    assert module(copy, target="keypoints").num_train_samples == 13
    assert module(copy, target="keypoints", min_keypoints=2).num_train_samples == 14


def test_crowds_are_not_trained_on(root):
    data = module(root, augmentation=None, aspect_ratio_groups=None)
    train = data.datasets["train"]
    with_crowd = np.flatnonzero(train.index.crowds)
    assert len(with_crowd)
    image = int(np.searchsorted(train.index.starts, with_crowd[0], side="right")) - 1
    position = train.images.tolist().index(image)
    rows = train.index.rows(image)
    sample = train[SampleKey(0, position)]
    assert len(sample["target"]["boxes"]) == rows.stop - rows.start - 1


def test_limits(root):
    train = module(root).datasets["train"]
    ids = train.index.image_ids[train.images].tolist()
    data = module(root, train_images=4, val="train2017", val_images=ids[:4])
    assert [len(data.datasets[s]) for s in ("train", "val")] == [4, 4]
    for name in ("train", "val"):
        dataset = data.datasets[name]
        assert [dataset[SampleKey(0, i)]["id"] for i in range(4)] == ids[:4]
    with pytest.raises(ZooError, match="train_images is 0"):
        module(root, train_images=0)
    with pytest.raises(ZooError, match="names the image 77, which is not among the 14"):
        module(root, train_images=[77])


def test_the_same_pixels_in_every_worker(root):
    def sums(workers):
        data = module(root, target="masks", augmentation="ssd", workers=workers)
        return [
            (b["id"], [int(i.sum()) for i in b["image"]], [t["area"].tolist() for t in b["target"]])
            for b in data.train_dataloader()
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice where the machine has one core
        assert sums(2) == sums(0)


def test_a_batch_takes_one_open_file(root):
    samples = [module(root, target="masks").datasets["train"][SampleKey(0, i)] for i in range(3)]
    moved = in_one_memory(samples)
    blocks = set()
    for ours, theirs in zip(moved, samples, strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert ours["id"] == theirs["id"]
        assert set(ours["target"]) == set(theirs["target"])
        for name, value in theirs["target"].items():
            if isinstance(value, torch.Tensor):
                assert ours["target"][name].dtype == value.dtype
                assert torch.equal(ours["target"][name], value)
                blocks.add(ours["target"][name].untyped_storage().data_ptr())
        blocks.add(ours["image"].untyped_storage().data_ptr())
    assert len(blocks) == 1


def test_missing_data(root, copy, tmp_path):
    with pytest.raises(ZooError, match=r"no data in .*prepare_coco.py makes it"):
        module(tmp_path / "none")
    with pytest.raises(ZooError, match=r"no .*val2099.json' \(data.val\).*expected this layout"):
        module(root, val="val2099")
    (copy / "val2017" / "000000002007.jpg").unlink()
    with pytest.raises(ZooError, match=r"1 of 16 images are not in .*'000000002007.jpg'.*on_error"):
        module(copy)
    data = module(copy, on_error="skip")
    ledger = tmp_path / "ledger.jsonl"
    data.configure(PLAN, seed=1, ledger=ledger)
    assert len(list(data.val_dataloader())) == 15
    (entry,) = ledgers.read(ledger)
    assert entry["file"] == "val2017/000000002007.jpg"
    (copy / "annotations" / "instances_train2017.json").unlink()
    assert module(copy, "validate", on_error="skip").num_classes == 6  # val's file has the names


def test_another_size_than_the_file_says(copy):
    def edit(content):
        content["images"][0]["height"], content["images"][0]["width"] = 200, 300

    change(copy, edit, "instances_val2017")
    with pytest.raises(ZooError, match=r"2000.jpg': it has \d+ x \d+ pixels .* for 200 x 300"):
        list(module(copy, "validate").val_dataloader())
    assert len(list(module(copy, "validate", on_error="skip").val_dataloader())) == 15


def test_policies(copy, tmp_path):
    def edit(content):
        content["annotations"][0]["bbox"][2] = 0
        content["annotations"][1]["bbox"][2] = -5

    change(copy, edit)
    with pytest.warns(UserWarning, match=r"left out of .*train2017.json': 2 x box without area"):
        data = module(copy, target="masks")
    assert data.num_train_samples == 14
    with pytest.raises(ZooError, match="has no area within the image"):
        module(copy, on_bad_annotation="refuse")

    def damage(content):
        first = content["annotations"][2]
        first["segmentation"] = {"size": [9, 9], "counts": "zz"}
        content["annotations"][3]["category_id"] = 77

    change(copy, damage)
    with pytest.warns(UserWarning, match="unknown category"):
        data = module(copy, target="masks", on_bad_annotation="skip")
    ledger = tmp_path / "ledger.jsonl"
    for _ in range(2):  # the run names its ledger later, and each rank calls this
        data.configure(PLAN, seed=1, ledger=ledger)
    entries = data.read_ledger()
    assert len(entries) == 4
    assert entries[-1]["file"].startswith("annotations/instances_train2017.json: annotation ")
    assert entries[-1]["error"] == "category_id is 77, which no category has"
    assert {e["split"] for e in entries} == {"train"}
    with pytest.raises(ZooError, match="expected that of the image"):
        module(copy, target="masks")


def test_areas_that_the_file_lacks(copy):
    def edit(content):
        for annotation in content["annotations"]:
            del annotation["area"]

    change(copy, edit, "instances_val2017")
    for batch in module(copy, "validate", target="masks").val_dataloader():
        for record in batch["target"][0]["annotations"]:
            assert record["area"] == coco_mask.area(record["segmentation"])
    for batch in module(copy, "validate").val_dataloader():
        for record in batch["target"][0]["annotations"]:
            assert record["area"] == record["bbox"][2] * record["bbox"][3]


def test_degenerate_objects_in_evaluation(copy):
    def edit(content):
        content["annotations"][0]["bbox"][2] = 0

    change(copy, edit, "instances_val2017")
    with pytest.warns(UserWarning, match="box without area"):
        data = module(copy, "validate", target="masks")
    (batch, *_) = data.val_dataloader()
    (target,) = batch["target"]
    assert len(target["annotations"]) == len(target["boxes"]) + 1
    assert len(target["masks"]) == len(target["boxes"])


def test_stages(root):
    data = module(root, stage=None)
    assert list(data.splits("fit")) == ["train", "val"]
    assert list(data.splits("test")) == list(data.splits("predict")) == ["val"]
    assert len(list(module(root, "predict").predict_dataloader())) == 16
    data = module(root, "test", test="train2017")
    assert len(list(data.test_dataloader())) == 16
    assert list(module(root, val=None).val_dataloader()) == []


def test_other_layouts(copy):
    for split in ("train2017", "val2017"):
        path = copy / "annotations" / f"instances_{split}.json"
        path.rename(copy / split / "_annotations.coco.json")
    data = module(copy, annotations="{split}/_annotations.coco.json")
    assert data.num_train_samples == 14
    with pytest.raises(ZooError, match=r"expected \{split\} in it"):
        module(copy, annotations="x.json")


def test_wrong_arguments(root):
    for options, text in (
        ({"target": "mask"}, "unknown target 'mask'; did you mean masks"),
        ({"labels": "id"}, "unknown labels 'id'"),
        ({"on_bad_annotation": "warn"}, "unknown on_bad_annotation 'warn'"),
        ({"augmentation": "flip"}, "did you mean hflip"),
        ({"aspect_ratio_groups": -1}, "aspect_ratio_groups is -1"),
        ({"target": "keypoints", "keypoints": "coco"}, "unknown skeleton 'coco'"),
        ({"eval_batch": 0}, "eval_batch is 0"),
    ):
        with pytest.raises(ZooError, match=text):
            module(root, **options).val_dataloader()


def test_albumentations(root):
    library = pytest.importorskip("albumentations")
    transforms = [library.HorizontalFlip(p=0.5), library.RandomResizedCrop((64, 48), (0.4, 1.0))]
    for target in ("masks", "keypoints"):
        data = module(root, target=target, albumentations=transforms)
        for batch in data.train_dataloader():
            for image, found in zip(batch["image"], batch["target"], strict=True):
                assert image.shape == (3, 64, 48)
                if target == "masks":
                    assert found["masks"].shape == (len(found["boxes"]), 64, 48)
                else:
                    assert len(found["keypoints"]) == len(found["boxes"])


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_within_an_epoch(root, workers):
    def facts(batch):
        return batch["id"], [int(i.sum()) for i in batch["image"]]

    def loader():
        found = module(root, augmentation="ssdlite", workers=workers).train_dataloader()
        found.set_epoch(2)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice where the machine has one core
        whole = [facts(batch) for batch in loader()]
        first = loader()
        batches = iter(first)
        seen = [facts(next(batches)) for _ in range(3)]
        second = loader()
        second.load_state_dict(first.state_dict())
        assert seen + [facts(batch) for batch in second] == whole
    assert len(whole) == 8


@pytest.mark.skipif(not COCO100.is_dir(), reason="no shared/data/coco100")
def test_real_photos():
    data = module(COCO100, target="masks")
    assert data.num_classes == 91
    assert data.num_train_samples == 78  # two of 80 have no object
    coco = oracle(COCO100, "instances_val2017")
    crowds = 0
    for batch in data.val_dataloader():
        (found,), (number,) = batch["target"], batch["id"]
        records = coco.imgToAnns[number]
        assert [r["id"] for r in found["annotations"]] == [r["id"] for r in records]
        masks = [coco.annToMask(r) for r in records]
        assert np.array_equal(found["masks"].numpy(), np.array(masks).reshape(found["masks"].shape))
        crowds += int(found["iscrowd"].sum())
    for batch in data.train_dataloader():
        for found in batch["target"]:
            crowds += 100 * int(found["iscrowd"].sum())
            for box, mask in zip(found["boxes"].tolist(), found["masks"].numpy(), strict=True):
                ys, xs = np.nonzero(mask)
                edges = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                assert np.abs(np.array(edges) - box).max() <= 2
    assert crowds < 100
