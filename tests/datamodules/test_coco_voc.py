"""The VOC classes of COCO: which images, which classes, what a pixel of several objects is."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from lightning_zoo.batch import BatchPlan
from lightning_zoo.datamodules import CocoVocDataModule, SampleKey
from lightning_zoo.datamodules import ledger as ledgers
from lightning_zoo.datamodules.coco_dataset import in_one_memory
from lightning_zoo.datamodules.coco_voc import COCO_CATEGORIES, COCO_IDS
from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.decode import read_image

# pycocotools 2.0.11 defines __array__ without the copy keyword of NumPy 2:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COCO100 = Path(__file__).parents[3] / "shared" / "data" / "coco100"
PLAN = BatchPlan(4, 2, 1, 2)
SMALL = {"train_crop": 48, "train_resize": (40, 90), "eval_resize": 52}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco_voc")
    CocoVocDataModule.write_fake(root, classes=5, images=8, size=64)
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
    data = CocoVocDataModule(root=str(root), **{"workers": 0, **SMALL, **options})
    data.configure(PLAN, seed=1)
    if stage:
        data.setup(stage)
    return data


def content(root, split="train2017"):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def change(root, edit, split="train2017"):
    found = content(root, split)
    edit(found)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(found))


def slow_mask(found, image):
    """Return a mask by the words of the rule, with pycocotools."""
    height, width = image["height"], image["width"]
    mask, count = np.zeros((height, width), np.uint8), np.zeros((height, width), int)
    for record in found["annotations"]:
        if record["image_id"] != image["id"] or record["category_id"] not in COCO_IDS:
            continue
        rle = record["segmentation"]
        if isinstance(rle, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(rle, height, width))
        elif isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, height, width)
        one = coco_mask.decode(rle)
        mask = np.maximum(mask, one * COCO_IDS.index(record["category_id"]))
        count += one
    mask[count > 1] = 255
    return mask


def slow_filter(found):
    """Return the files of the images that training takes, by the words of the rule."""
    area = dict.fromkeys((image["id"] for image in found["images"]), 0.0)
    for record in found["annotations"]:
        if record["category_id"] in COCO_IDS:
            area[record["image_id"]] += record["area"]
    return sorted(i["file_name"] for i in found["images"] if area[i["id"]] > 1000)


def test_the_classes():
    names = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
             "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}  # fmt: skip
    classes = module("nowhere", stage=None).class_names
    assert len(classes) == len(COCO_IDS) == len(set(COCO_IDS)) == 21
    assert classes[0] == "__background__"
    assert classes[1:] == sorted(classes[1:])
    for number, name in list(zip(COCO_IDS, classes, strict=True))[1:]:
        assert COCO_CATEGORIES[number] == names.get(name, name)


def test_batches(root):
    data = module(root)
    assert data.target == "segmentation"
    assert data.num_classes == 21
    count = 0
    for batch in data.train_dataloader():
        assert set(batch) == {"image", "mask", "id"}
        assert (batch["image"].shape, batch["image"].dtype) == ((2, 3, 48, 48), torch.uint8)
        assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 48, 48), torch.uint8)
        assert set(batch["mask"].unique().tolist()) <= {0, 1, 2, 3, 4, 255}
        count += len(batch["id"])
    assert count == 8
    seen, batches = set(), list(data.val_dataloader())
    assert len(batches) == 8
    for batch in batches:
        (image,), (mask,), (name,) = batch["image"], batch["mask"], batch["id"]
        assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8)
        assert image.shape[1:] == mask.shape
        assert min(mask.shape) == 52
        assert name.startswith("val2017/")
        seen |= set(mask.unique().tolist())
    assert seen == {0, 1, 2, 3, 4, 255}


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_and_images_by_the_rule(root, split):
    assert check_rule(root, split)  # the generated ones overlap


@pytest.mark.skipif(not COCO100.is_dir(), reason="needs the real photos beside the checkout")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_photos(split):
    check_rule(COCO100, split)


def check_rule(root, split):
    """Compare masks and the choice of images with the rule; return the pixels of overlaps."""
    dataset = module(root, eval_resize=None).datasets[split]
    found = content(root, f"{split}2017")
    names = sorted(image["file_name"] for image in found["images"])
    expected = slow_filter(found) if split == "train" else names
    assert [name.split("/")[1] for name in dataset.images] == expected
    assert (expected != names) == (split == "train")
    images = {image["file_name"]: image for image in found["images"]}
    overlaps = 0
    for i, name in enumerate(expected):
        image = images[name]
        mask = dataset.masks(i, (image["height"], image["width"]))
        assert np.array_equal(mask, slow_mask(found, image))
        overlaps += int((mask == 255).sum())
    return overlaps


def test_evaluation_keeps_images_without_a_class(root):
    data = module(root, "validate", eval_resize=None)
    empty = 0
    for batch in data.val_dataloader():
        pixels = read_image(root / batch["id"][0])
        assert np.array_equal(batch["image"][0].permute(1, 2, 0).numpy(), pixels)
        empty += not batch["mask"][0].any()
    assert empty == 2


def test_the_training_filter(copy):
    def edit(found):
        records = found["annotations"]
        mine = [r for r in records if r["image_id"] == 1000]
        for record, area in zip(mine, (400, 600, 0), strict=False):
            record["area"] = area

    change(copy, edit)
    assert module(copy).num_train_samples == 7  # not more than 1000
    assert module(copy, min_area=999).num_train_samples == 8
    assert module(copy, min_area=0).num_train_samples == 8
    with pytest.raises(ZooError, match=r"no image of .* can be used \(data.train\).*min_area"):
        module(copy, min_area=1e9)

    def without(found):
        for record in found["annotations"]:
            del record["area"]

    change(copy, without)
    assert module(copy).num_train_samples == 8  # the masks are counted


def test_the_same_bytes_for_a_seed_epoch_and_index(root):
    first, second = module(root).datasets["train"], module(root).datasets["train"]
    for key in (SampleKey(0, 3), SampleKey(2, 3)):
        a, b = first[key], second[key]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["mask"], b["mask"])
    assert not torch.equal(first[SampleKey(0, 3)]["image"], first[SampleKey(1, 3)]["image"])


def test_the_same_pixels_in_every_worker(root):
    def sums(workers):
        data = module(root, workers=workers)
        train = [(b["id"], b["image"].sum(), b["mask"].sum()) for b in data.train_dataloader()]
        val = [(b["id"], b["image"][0].sum(), b["mask"][0].sum()) for b in data.val_dataloader()]
        return train, val

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice where the machine has one core
        assert sums(2) == sums(0)


def test_an_evaluation_batch_takes_one_open_file(root):
    samples = [module(root).datasets["val"][SampleKey(0, i)] for i in range(3)]
    moved = in_one_memory(samples)
    blocks = {s[name].untyped_storage().data_ptr() for s in moved for name in ("image", "mask")}
    assert len(blocks) == 1
    for ours, theirs in zip(moved, samples, strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["mask"], theirs["mask"])
        assert ours["id"] == theirs["id"]


def test_missing_data(copy, tmp_path):
    with pytest.raises(ZooError, match=r"no data in .*prepare_coco.py makes it"):
        module(tmp_path / "none")
    with pytest.raises(ZooError, match=r"no .*val2099.json' \(data.val\).*expected this layout"):
        module(copy, val="val2099")
    (copy / "val2017" / "000000002007.jpg").unlink()
    with pytest.raises(ZooError, match=r"1 of 8 images are not in .*'000000002007.jpg'.*on_error"):
        module(copy)
    data = module(copy, on_error="skip")
    ledger = tmp_path / "ledger.jsonl"
    data.configure(PLAN, seed=1, ledger=ledger)
    assert len(list(data.val_dataloader())) == 7
    assert [entry["file"] for entry in ledgers.read(ledger)] == ["val2017/000000002007.jpg"]
    assert module(copy, "test", on_error="skip").datasets.keys() == {"val"}
    assert "val" not in module(copy, val=None).datasets


def test_other_categories(copy):
    def rename(found):
        found["categories"][1]["name"] = "duck"

    change(copy, rename, "val2017")
    with pytest.raises(
        ZooError,
        match=r"the category 2 'duck' and COCO calls it 'bicycle'; expected COCO's own ids and "
        r"names: .* use MaskFolderDataModule",
    ):
        module(copy)

    def renumber(found):
        found["categories"] = [{"id": 500, "name": "duck"}]

    change(copy, renumber, "val2017")
    with pytest.raises(ZooError, match="the category 500 'duck' and COCO has no such id"):
        module(copy)


def test_some_of_the_categories_and_no_annotation(copy):
    def few(found):
        known = {record["category_id"] for record in found["annotations"]}
        found["categories"] = [c for c in found["categories"] if c["id"] in known]

    change(copy, few)
    assert module(copy).num_train_samples == 8
    change(copy, lambda found: found.update(annotations=[]), "val2017")
    batches = list(module(copy, "validate").val_dataloader())
    assert len(batches) == 8
    assert not any(batch["mask"][0].any() for batch in batches)


def test_another_size_than_the_file_says(copy):
    def edit(found):
        found["images"][1]["height"], found["images"][1]["width"] = 200, 300

    change(copy, edit, "val2017")
    with pytest.raises(ZooError, match=r"2007.jpg': it has \d+ x \d+ pixels .* for 200 x 300"):
        list(module(copy, "validate").val_dataloader())
    assert len(list(module(copy, "validate", on_error="skip").val_dataloader())) == 7


def test_policies(copy, tmp_path):
    def empty(found):
        found["annotations"][0]["segmentation"] = []

    change(copy, empty)
    with pytest.warns(UserWarning, match=r"left out of .*train2017.json': 1 x empty mask"):
        assert module(copy).num_train_samples == 8
    with pytest.raises(ZooError, match="segmentation is empty"):
        module(copy, on_bad_annotation="refuse")

    def damage(found):
        found["annotations"][1]["segmentation"] = {"size": [9, 9], "counts": "zz"}
        truck = next(r for r in found["annotations"] if r["category_id"] == 8)
        truck["segmentation"] = None  # of no class, so that it is not looked at

    change(copy, damage)
    with pytest.raises(ZooError, match=r"the RLE has the size \[9, 9\]"):
        module(copy)
    with pytest.warns(UserWarning, match="1 x damaged mask"):
        data = module(copy, on_bad_annotation="skip")
    ledger = tmp_path / "ledger.jsonl"
    for _ in range(2):  # the run names its ledger later, and each rank calls this
        data.configure(PLAN, seed=1, ledger=ledger)
    assert [entry["error"].split(";")[0][:12] for entry in ledgers.read(ledger)] == [
        "segmentation",
        "the RLE has ",
    ]
    with pytest.raises(ZooError, match="unknown on_bad_annotation 'ignore'"):
        module(copy, stage=None, on_bad_annotation="ignore")
    with pytest.raises(ZooError, match=r"annotations is 'a.json'; expected \{split\}"):
        module(copy, stage=None, annotations="a.json")
