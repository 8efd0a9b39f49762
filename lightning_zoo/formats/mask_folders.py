"""Images and, for each, a mask of the same name: palette, grey values or colours.

``images/train masks/train``, ``train/images train/masks``, ``images masks`` without splits,
``train train_labels``, and Pascal VOC's ``JPEGImages SegmentationClass ImageSets/Segmentation``.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING, Any

from lightning_zoo.batch import counted
from lightning_zoo.errors import ZooError
from lightning_zoo.formats.class_folders import count_splits, listed
from lightning_zoo.formats.files import IMAGE_EXTENSIONS, files_below, split_folders, split_of
from lightning_zoo.formats.images import image_size
from lightning_zoo.formats.index import SPLITS, DataIndex, Item, MaskCoding, Problem, SplitName
from lightning_zoo.transforms.decode import KINDS, DecodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_zoo.formats.recognise import Options

IMAGES = ("images", "image", "imgs", "img", "jpegimages", "photos", "leftimg8bit")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot",
         "segmentationclass", "segmentations", "segmentation", "labelmaps", "label_maps",
         "groundtruth", "ground_truth", "gt", "gtfine")  # fmt: skip
VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
VOC_NAME = re.compile(r"20\d\d_\d{6}")  # of the images of the challenge
WITHOUT_LOSS = frozenset({"png", "tif", "tiff", "bmp"})
TABLES = ("class_dict.csv", "labelmap.txt", "label_colors.txt")
NAMES = ("classes.txt", "codes.txt", "labels.txt", "names.txt")
NO_CLASS = ("void", "ignore", "__ignore__", "ignored")
VOID, VOID_NAME = 255, "void"
SAMPLE = 100  # masks that are looked at
MOST = 64  # colours that can be classes, and values that need not be a smoothed edge


@dataclass(frozen=True)
class Pair:
    """A folder of images and its folder of masks, relative to the root."""

    images: str
    masks: str
    split: SplitName


@dataclass(frozen=True)
class Seen:
    """What a sample of masks holds.

    Attributes:
        values: Pixels of each value, of palette and grey masks.
        colors: Pixels of each colour, of RGB masks, or of all where colours were asked for.
        files: How many were read.
        rgb: How many of them are RGB.
    """

    values: Counter[int]
    colors: Counter[tuple[int, int, int]]
    files: int
    rgb: int = 0


def recognise(root: Path, annotations: Path | None = None) -> str | None:
    """Return why the folder holds images and masks, or None."""
    pairs = _pairs(root)
    if not pairs:
        return None
    if _is_voc(root):
        return "masks of Pascal VOC (SegmentationClass/, ImageSets/Segmentation/)"
    shown = [f"{p.images or '.'}/ and {p.masks}/" for p in pairs[:2]]
    return f"images and masks ({', '.join(shown)}{', ...' if len(pairs) > 2 else ''})"


def read(root: Path, options: Options) -> DataIndex:
    """Return the images with their masks, and what the masks' pixels mean.

    Raises:
        ZooError: If there is none, or the masks cannot be understood without a table.
    """
    pairs = _pairs(root)
    if not pairs:
        raise ZooError(
            f"no images with masks in {str(root)!r}; expected images/train/*.jpg and "
            "masks/train/*.png, or images/*.jpg and masks/*.png, named alike"
        )
    problems: list[Problem] = []
    decisions: list[str] = []
    items: list[Item] = []
    unlabelled: list[str] = []
    for pair in pairs:
        items += _join(root, pair, problems, decisions, unlabelled)
    if _is_voc(root):
        items = _listed(root, items, problems, decisions)
    if not items:
        pair = pairs[0]
        raise ZooError(
            f"no image of {pair.images}/ in {str(root)!r} has a mask of its name in {pair.masks}/; "
            "expected NAME.jpg and NAME.png, or NAME_mask.png"
        )
    items = _measured(root, items, problems)
    if not items:
        raise ZooError(
            f"no mask in {str(root)!r} has the size of its image; the first, {problems[-1].where}: "
            f"{problems[-1].what}; save the masks in the size of their images"
        )
    items.sort(key=lambda i: (SPLITS.index(i.split), i.file))
    classes, coding = _meaning(root, items, problems, decisions)
    if len(classes) < 2:
        problems.append(
            Problem("error", "one class", ", ".join(classes), "there is one class alone",
                    "name the background too: there is nothing to tell apart"))  # fmt: skip
    used = [split for split in SPLITS if any(i.split == split for i in items)]
    decisions.append(count_splits(items, used, "image"))
    return DataIndex(
        root=root,
        format="masks",
        task="segmentation",
        classes=tuple(classes),
        items=tuple(items),
        decisions=tuple(decisions),
        problems=tuple(problems),
        masks=coding,
        unlabelled=tuple(sorted(unlabelled)),
    )


# ---- where the images and masks lie


def _is_voc(root: Path) -> bool:
    return all((root / folder).is_dir() for folder in VOC)


def _pairs(root: Path) -> list[Pair]:
    """Return the folders of images and of their masks."""
    if _is_voc(root):
        return [Pair(VOC[0], VOC[1], "train")]
    folders = _folders(root)
    splits = split_folders(root)
    images, masks = _named(folders, IMAGES), _named(folders, MASKS)
    found: list[Pair] = []
    for image in images:
        for mask in masks:
            inner = split_folders(root / mask)
            for name, split in split_folders(root / image).items():
                if name in inner:
                    found.append(Pair(f"{image}/{name}", f"{mask}/{name}", split))
            if not found:
                found.append(Pair(image, mask, "train"))
            found = [pair for pair in found if _has_masks(root, pair)]
            if found:
                return found
    for name, split in splits.items():
        inside = _folders(root / name)
        for image in _named(inside, IMAGES):
            for mask in _named(inside, MASKS):
                found.append(Pair(f"{name}/{image}", f"{name}/{mask}", split))
        beside = re.compile(rf"{re.escape(name)}[_-]?({'|'.join(MASKS)})", re.I)
        found += [Pair(name, other, split) for other in folders if beside.fullmatch(other)]
    return [pair for pair in found if _has_masks(root, pair)]


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _named(folders: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the folders of those names, in the order of the names."""
    plain = {name.lower(): name for name in folders}
    return [plain[name] for name in names if name in plain]


def _has_masks(root: Path, pair: Pair) -> bool:
    return all(_has_image(root / folder) for folder in (pair.images, pair.masks))


def _has_image(folder: Path) -> bool:
    """Tell whether an image lies in a folder or below."""
    todo = [folder]
    while todo:
        for path in todo.pop().iterdir():
            if path.name.startswith("."):
                continue
            if path.suffix[1:].lower() in IMAGE_EXTENSIONS:
                return True
            if path.is_dir() and not path.is_symlink():
                todo.append(path)
    return False


# ---- which mask belongs to which image


def _join(
    root: Path, pair: Pair, problems: list[Problem], decisions: list[str], unlabelled: list[str]
) -> list[Item]:
    """Return the images of a folder that have a mask; both kinds of leftovers become problems."""
    images = {_stem(name): name for name in files_below(root / pair.images, IMAGE_EXTENSIONS)}
    found = files_below(root / pair.masks, IMAGE_EXTENSIONS)
    lossy = [name for name in found if name.rpartition(".")[2].lower() not in WITHOUT_LOSS]
    masks = {_stem(name): name for name in found if name not in {*lossy}}
    if lossy and not masks:
        raise ZooError(
            f"the masks in {str(root / pair.masks)!r} are {PurePosixPath(lossy[0]).suffix} files, "
            "whose compression changes the values of pixels; save them as .png"
        )
    cut, added = _endings(images, masks)
    if cut or added:
        said = f"NAME{cut}.*" if cut else "NAME.*"
        decisions.append(f"the mask of {pair.images}/{said} is {pair.masks}/NAME{added}.*")
    items = []
    for stem, name in images.items():
        mask = masks.pop(stem.removesuffix(cut) + added, None)
        if mask is not None:
            file = f"{pair.images}/{name}"
            items.append(Item(file, pair.split, mask=f"{pair.masks}/{mask}"))
            continue
        unlabelled.append(f"{pair.images}/{name}")
        problems.append(
            Problem("warning", "image without a mask", f"{pair.images}/{name}",
                    f"there is no mask of its name in {pair.masks}/, and it was left out",
                    "draw its mask, or remove it"))  # fmt: skip
    problems += [
        Problem("warning", "mask without an image", f"{pair.masks}/{name}",
                f"there is no image of its name in {pair.images}/", "add the image, or remove it")
        for name in masks.values()
    ]  # fmt: skip
    return items


def _endings(images: Mapping[str, str], masks: Mapping[str, str]) -> tuple[str, str]:
    """Return what image names have at their end and masks lack, and what masks have instead."""
    together = sum(stem in masks for stem in images)
    best = ("", "", together)
    for cut in ("", "_image", "_img", "_leftImg8bit", "-image"):
        stems = {s.removesuffix(cut) for s in images if s.endswith(cut)}
        counts: Counter[str] = Counter()
        for mask in list(masks)[:SAMPLE]:
            start = next((n for n in range(len(mask), 0, -1) if mask[:n] in stems), 0)
            if start:
                counts[mask[start:]] += 1
        for added, _ in counts.most_common(1):
            together = sum(stem + added in masks for stem in stems)
            if together > best[2]:
                best = (cut, added, together)
    return best[:2]


def _listed(
    root: Path, items: Sequence[Item], problems: list[Problem], decisions: list[str]
) -> list[Item]:
    """Return the items of VOC's lists, in the split of their list."""
    lists = {p.stem: p for p in sorted((root / VOC[2]).glob("*.txt"))}
    chosen = {name: split for name in lists if (split := split_of(name)) is not None}
    if "train" not in chosen.values():
        chosen |= {name: "train" for name in ("trainval", "default") if name in lists}
    if not chosen:
        decisions.append("no list in ImageSets/Segmentation/: all images are training")
        return list(items)
    decisions.append(f"splits of ImageSets/Segmentation/: {', '.join(f'{n}.txt' for n in chosen)}")
    by_name = {PurePosixPath(i.file).stem: i for i in items}
    found: dict[str, Item] = {}
    for name, split in sorted(chosen.items(), key=lambda c: SPLITS.index(c[1])):
        text = lists[name].read_text(encoding="utf-8-sig", errors="replace")
        for line, words in enumerate(map(str.split, text.splitlines()), start=1):
            if not words:
                continue
            stem = PurePosixPath(words[0].replace("\\", "/")).stem if "/" in words[0] else words[0]
            where = f"{VOC[2]}/{name}.txt line {line}"
            if stem not in by_name:
                problems.append(
                    Problem("error", "file is missing", where,
                            f"there is no image with a mask of the name {stem!r}",
                            "put both there, or remove the line"))  # fmt: skip
            elif stem in found:
                problems.append(
                    Problem("error", "file in two splits", where,
                            f"{stem} is in {found[stem].split} already, which was kept",
                            "keep one of the lines"))  # fmt: skip
            else:
                item = by_name[stem]
                found[stem] = Item(item.file, split, mask=item.mask)
    return list(found.values())


def _measured(root: Path, items: Sequence[Item], problems: list[Problem]) -> list[Item]:
    """Return the items with their sizes, without those whose mask has another size."""
    good = []
    for item in items:
        try:
            width, height = image_size(root / item.file)
            mask = image_size(root / str(item.mask))
        except DecodeError:
            good.append(item)  # the check of the data, and training, say so
            continue
        if mask == (width, height):
            good.append(Item(item.file, item.split, width, height, mask=item.mask))
            continue
        problems.append(
            Problem("error", "mask of another size", str(item.mask),
                    f"it has {mask[0]} x {mask[1]} pixels and its image {width} x {height}; both "
                    "were left out",
                    "save the mask in the size of its image"))  # fmt: skip
    return good


# ---- what the pixels mean


def _meaning(
    root: Path, items: Sequence[Item], problems: list[Problem], decisions: list[str]
) -> tuple[list[str], MaskCoding]:
    """Return the classes and how pixels name them.

    Raises:
        ZooError: If that cannot be known without a table or a list of names.
    """
    table = _colour_table(root)
    if table is not None:
        path, colors = table
        seen = _look(root, items, colours=True)
        strange = set(seen.colors) - {(r, g, b) for r, g, b in colors.values()}
        if seen.rgb or not strange:
            if strange:
                problems.append(
                    Problem("error", "colour without a class", path.name,
                            f"masks hold {_rgb(sorted(strange))}, which is not in it",
                            "add it to the table; the name void is ignored"))  # fmt: skip
            decisions.append(f"{path.name} gives the colour of each class")
            return _named_classes(colors, decisions), MaskCoding(colors=colors)
    seen = _look(root, items)
    if seen.colors:
        return _from_colors(root, seen, decisions)
    names = _names(root, items, table, decisions)
    if names is not None:
        return _from_names(names, seen, problems, decisions)
    return _from_values(root, seen, decisions)


def _look(root: Path, items: Sequence[Item], *, colours: bool = False) -> Seen:
    """Return what the masks hold, of a sample that is spread over all."""
    from lightning_zoo.transforms.label_maps import read_label_map

    step = max(1, len(items) // SAMPLE)
    values: Counter[int] = Counter()
    colors: Counter[tuple[int, int, int]] = Counter()
    files = rgb = 0
    for item in items[::step]:
        path = root / str(item.mask)
        try:
            found = read_label_map(path, colours=colours)
        except DecodeError:
            continue
        files += 1
        rgb += found.ndim == 3 and _is_rgb(path)
        if found.ndim == 2:
            values.update(_counts(found))
        else:
            wide = found.astype("int32")
            codes = _counts(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
            for code, count in codes.items():
                colors[code >> 16, code >> 8 & 255, code & 255] += count
        if len(colors) > 4096:
            break
    if not files:
        raise ZooError(
            f"none of the {len(items)} masks in {str(root)!r} can be read; the first is "
            f"{items[0].mask if items else 'none'!r}; expected PNG with a palette, grey or RGB"
        )
    return Seen(values, colors, files, rgb)


def _counts(found: NDArray[Any]) -> dict[int, int]:
    import numpy as np

    values, counts = np.unique(found, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _is_rgb(path: Path) -> bool:
    from PIL import Image

    with Image.open(path, formats=KINDS) as image:
        return image.mode in ("RGB", "RGBA")


def _named_classes(names: Mapping[str, Any], decisions: list[str]) -> list[str]:
    """Return the classes of a table, and say so: the name void is none."""
    classes = [name for name in names if name != VOID_NAME]
    void = f"; pixels of {VOID_NAME} are not learned" if VOID_NAME in names else ""
    decisions.append(f"{counted(len(classes), 'class', 'es')}: {listed(classes)}{void}")
    return classes


def _from_names(
    names: Sequence[str], seen: Seen, problems: list[Problem], decisions: list[str]
) -> tuple[list[str], MaskCoding]:
    """Return the meaning of values that are places in a list of names."""
    binary = len(names) == 2 and set(seen.values) == {0, VOID}
    values: dict[str, int | list[int]] | None = None
    if binary:
        values = {names[0]: 0, names[1]: VOID}
        decisions.append(f"masks of black and white: 0 is {names[0]}, 255 is {names[1]}")
    elif VOID_NAME in names:
        values = {name: value for value, name in enumerate(names)}
    ignore = VOID if not binary and VOID in seen.values and len(names) <= VOID else None
    if ignore is not None:
        decisions.append("the value 255 is void, and not learned")
    known = {*range(len(names)), ignore} if not binary else {0, VOID}
    if strange := sorted(set(seen.values) - known):
        problems.append(
            Problem("error", "value without a class", listed([*map(str, strange)]),
                    f"masks hold values from {strange[0]} to {strange[-1]}, and the {len(names)} "
                    f"classes have 0 to {len(names) - 1}",
                    "name all classes, one a line in the order of their values"))  # fmt: skip
    return _named_classes(dict.fromkeys(names), decisions), MaskCoding(values, ignore=ignore)


def _from_values(root: Path, seen: Seen, decisions: list[str]) -> tuple[list[str], MaskCoding]:
    """Return names for values that nothing names."""
    values = sorted(seen.values)
    total = seen.values.total()
    if values[-1] > VOID:
        raise ZooError(
            f"the masks in {str(root)!r} hold values up to {values[-1]}; expected classes from 0 "
            "to 254 (are these masks of instances, or depth?)"
        )
    if len(values) > MOST and seen.values[0] + seen.values[VOID] > 0.8 * total:
        raise ZooError(
            f"the masks in {str(root)!r} hold {len(values)} values between black and white, as "
            "smoothed edges do; save them without smoothing, in 0 and 255 alone"
        )
    how = f"name them in {str(root / NAMES[0])!r}, one name a line in the order of the values"
    if values == [0, VOID]:
        decisions.append("masks of black and white: 0 is background, 255 is object")
        return ["background", "object"], MaskCoding({"background": 0, "object": VOID})
    others = [v for v in values if v != VOID]
    # beside 0, 1, 2 it is no class; beside 0, 85, 170 it is one more shade
    ignore = VOID if VOID in values and others and not _has_gaps(others) else None
    if ignore is not None:
        decisions.append("the value 255 is void, and not learned")
    used = others if ignore is not None else values
    gaps = _has_gaps(used)
    numbers = used if gaps else range(used[-1] + 1)
    names = [f"class_{v}" if v else "background" for v in numbers]
    shown = listed([*map(str, used)], 20)
    decisions.append(
        f"{counted(len(names), 'class', 'es')} without names: the values {shown} (seen in "
        f"{counted(seen.files, 'mask')}) are called {listed(names, 4)}; {how}"
    )
    coding: dict[str, int | list[int]] = dict(zip(names, used, strict=True)) if gaps else {}
    return names, MaskCoding(coding or None, ignore=ignore)


def _has_gaps(values: Sequence[int]) -> bool:
    """Tell whether values are shades rather than 0, 1, 2, ..., of which some are rare."""
    return values[-1] >= max(2 * len(values), 32)


def _from_colors(root: Path, seen: Seen, decisions: list[str]) -> tuple[list[str], MaskCoding]:
    """Return names for colours that are shades of grey.

    Raises:
        ZooError: If they are not: what they mean has to be written down.
    """
    colors = sorted(seen.colors)
    grey = all(r == g == b for r, g, b in colors) and not seen.values
    if grey and len(colors) <= MOST:
        shades = Counter({color[0]: count for color, count in seen.colors.items()})
        classes, coding = _from_values(root, Seen(shades, Counter(), seen.files), decisions)
        names = coding.values or {name: value for value, name in enumerate(classes)}
        meant = {name: [v, v, v] for name, v in names.items() if isinstance(v, int)}
        if coding.ignore is not None:
            meant[VOID_NAME] = [coding.ignore] * 3
        decisions.append("masks are saved in colour and hold shades of grey alone")
        return classes, MaskCoding(colors=meant)
    if len(colors) > MOST:
        raise ZooError(
            f"the masks in {str(root)!r} hold more than {MOST} colours; masks have one colour a "
            "class, saved without smoothing as .png (are these photographs, or overlays?)"
        )
    common = [color for color, _ in seen.colors.most_common()]
    rows = ["name,r,g,b"]
    for i, (r, g, b) in enumerate(common):
        rows.append(f"{f'class_{i}' if i else 'background'},{r},{g},{b}")
    raise ZooError(
        f"the masks in {str(root)!r} are in colour ({_rgb(common)}), and nothing says what the "
        "colours mean; write it down, with your own names (void for what is not to be learned): "
        f"printf '{''.join(f'{row}{chr(92)}n' for row in rows)}' > {quote(str(root / TABLES[0]))}"
    )


def _rgb(colors: Sequence[Sequence[int]]) -> str:
    return listed([f"[{r}, {g}, {b}]" for r, g, b in colors])


# ---- files that name classes


def _colour_table(root: Path) -> tuple[Path, dict[str, list[int]]] | None:
    """Return the file that gives each class a colour, and the colours.

    Raises:
        ZooError: If it cannot be understood.
    """
    for name in TABLES:
        path = root / name
        if not path.is_file():
            continue
        colors: dict[str, list[int]] = {}
        for line, (label, color) in _color_rows(path):
            if color is None:
                raise ZooError(
                    f"{str(path)!r}, line {line}: expected a name and its colour, three whole "
                    "numbers from 0 to 255"
                )
            label = VOID_NAME if label.lower() in NO_CLASS else label
            if color in colors.values() or label in colors:
                raise ZooError(f"{str(path)!r}, line {line}: {label} or its colour stands above")
            colors[label] = color
        if colors:
            return path, colors
    return None


def _color_rows(path: Path) -> list[tuple[int, tuple[str, list[int] | None]]]:
    """Return number of line, name and colour of each row of a colour table."""
    rows = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if path.name == "class_dict.csv":
            label, *cells = next(csv.reader([text], skipinitialspace=True))
            if number == 1 and not any(cell.strip().isdecimal() for cell in cells):
                continue  # the names of the columns
        elif path.name == "labelmap.txt":
            label, _, rest = text.partition(":")
            cells = rest.partition(":")[0].split(",")
        else:
            words = text.split(maxsplit=3)
            label, cells = words[-1], words[:3]
        good = len(cells) == 3 and all(c.strip().isdecimal() and int(c) < 256 for c in cells)
        rows.append((number, (label.strip(), [int(c) for c in cells] if good else None)))
    return rows


def _names(
    root: Path,
    items: Sequence[Item],
    table: tuple[Path, dict[str, list[int]]] | None,
    decisions: list[str],
) -> list[str] | None:
    """Return the names of the values 0, 1, 2, ...; None where nothing gives them."""
    for name in NAMES:
        path = root / name
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if names[:1] == ["__ignore__"]:  # labelme's first line stands for -1
                names = names[1:]
            names = [VOID_NAME if n.lower() in NO_CLASS else n for n in names]
            if len(names) != len(set(names)):
                raise ZooError(f"{str(path)!r} has a name twice; expected another for each class")
            decisions.append(f"{name} names the values of the masks")
            return names
    if table is not None:
        decisions.append(f"{table[0].name} names the values of the masks, in its order")
        return list(table[1])
    if _is_voc(root) and all(VOC_NAME.fullmatch(PurePosixPath(i.file).stem) for i in items):
        from lightning_zoo.models.registry import class_names

        decisions.append("the files are named as those of Pascal VOC, whose classes were taken")
        return list(class_names("voc"))
    return None


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
