"""A validation split where there is none: seeded, stratified, the same on every machine.

Files are ordered by a hash of their names and the seed: neither the order in which a disk lists
them nor a library's random numbers matter, and a file that is added later moves few of the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_zoo.formats.index import DataIndex, Item

NOUNS = {"video": "videos"}


def make_splits(
    index: DataIndex,
    val_share: float = 0.2,
    split_seed: int = 0,
    *,
    labels: Mapping[str, Sequence[int]] | None = None,
) -> DataIndex:
    """Return the index with a val split taken from train, unless it has one.

    An image with several classes counts for the one of them that is rarest. A class of two images
    or more is on both sides wherever the images allow it.

    Args:
        index: The data; without a val split, or nothing is changed.
        val_share: Share of the training items to take; 0 takes none.
        split_seed: Seed of the choice.
        labels: Classes of each file, where the items themselves do not tell (masks).
    """
    train = index.of("train")
    noun = NOUNS.get(index.task, "images")
    if index.of("val") or not train or val_share == 0:
        return index
    if len(train) < 2:
        return replace(index, decisions=(
            *index.decisions,
            f"no validation split: there is one of the training {noun} only",
        ))  # fmt: skip
    if labels is None:
        labels = {i.file: _classes_of(i) for i in train}
    taken = choose({i.file: labels.get(i.file, ()) for i in train}, val_share, split_seed)
    items = [
        replace(i, split="val") if i.split == "train" and i.file in taken else i
        for i in index.items
    ]
    items.sort(key=lambda i: (("train", "val", "test").index(i.split), i.file))
    how = "stratified by class" if any(labels.values()) else "at random"
    share = f"{100 * len(taken) / len(train):.0f} %"
    return index.with_items(
        items,
        f"no validation split: {len(taken)} of {len(train)} training {noun} ({share}, seed "
        f"{split_seed}, {how}) were taken for it; --val_share, --split_seed",
    )


def choose(labels: Mapping[str, Sequence[int]], share: float, seed: int) -> set[str]:
    """Return the files to take: a share of each class.

    Args:
        labels: Classes of each file; a file may have several, or none.
        share: Share to take, from 0 to 1.
        seed: Seed of the choice.
    """
    order = sorted(labels, key=lambda file: hashlib.sha256(f"{seed}/{file}".encode()).digest())
    total = Counter(label for file in order for label in {*labels[file]})
    groups: dict[int | None, list[str]] = defaultdict(list)
    for file in order:
        rarest = min(labels[file], key=lambda label: (total[label], label), default=None)
        groups[rarest].append(file)
    taken: set[str] = set()
    count: Counter[int] = Counter()
    # the rarest first: what they bring of the other classes counts for those too
    for label in sorted((g for g in groups if g is not None), key=lambda g: (total[g], g)):
        wanted = round(share * total[label])
        if total[label] > 1:
            wanted = min(max(wanted, 1), total[label] - 1)
        for file in groups[label][: max(0, wanted - count[label])]:
            taken.add(file)
            count.update({*labels[file]})
    without = groups.get(None, [])
    taken.update(without[: round(share * len(without))])
    if not taken and len(order) > 1:
        taken.add(next((f for f in order if all(total[g] > 1 for g in labels[f])), order[0]))
    return _on_both_sides(labels, order, total, taken)


def _on_both_sides(
    labels: Mapping[str, Sequence[int]], order: list[str], total: Counter[int], taken: set[str]
) -> set[str]:
    """Move a file for each class that is on one side alone, where no other class loses by it."""
    count = Counter(label for file in taken for label in {*labels[file]})
    for label in sorted(total, key=lambda g: (total[g], g)):
        if total[label] < 2 or 0 < count[label] < total[label]:
            continue
        to_val = count[label] == 0
        for file in order:
            own = {*labels[file]}
            # what is left of each of its classes on the side that it leaves
            left = {g: total[g] - count[g] - 1 if to_val else count[g] - 1 for g in own}
            if to_val and any(total[g] < 2 for g in own):
                continue  # the only image of a class is worth more in training
            if label in own and all(n > 0 or total[g] < 2 for g, n in left.items()):
                taken ^= {file}
                count.update(dict.fromkeys(own, 1 if to_val else -1))
                break
    return taken


def _classes_of(item: Item) -> list[int]:
    """Return the places of the classes that an item shows, each once, crowds left out."""
    return sorted({*item.labels} | {o.label for o in item.objects if not o.crowd})
