"""What a skeleton is: names, mirrored pairs, bones and tolerances of keypoints, in one place.

Model, flip, metric and drawing all take them from here. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_zoo.errors import ZooError, unknown
from lightning_zoo.plain_yaml import load_yaml


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of one kind of object.

    Attributes:
        names: Name of each keypoint, in the order of the annotations.
        flip_pairs: Indices of keypoints that change places when the image is mirrored.
        bones: Indices of keypoints that a line joins in pictures.
        sigmas: Tolerance of each keypoint in object keypoint similarity, as a share of the object's
            size (https://cocodataset.org/#keypoints-eval); larger forgives more.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    bones: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count:
            raise ZooError("a skeleton has no keypoints; expected at least one name")
        if len(self.sigmas) != count:
            raise ZooError(f"a skeleton has {count} names and {len(self.sigmas)} sigmas")
        if any(not sigma > 0 for sigma in self.sigmas):
            raise ZooError(f"sigmas are {self.sigmas}; expected numbers above 0")
        for what in ("flip_pairs", "bones"):
            for pair in getattr(self, what):
                if len(pair) != 2 or not all(0 <= i < count for i in pair):
                    raise ZooError(
                        f"{what} has {tuple(pair)!r}; expected two indices from 0 to {count - 1}"
                    )
        swapped = [i for pair in self.flip_pairs for i in pair]
        if len(set(swapped)) != len(swapped):
            raise ZooError("flip_pairs names a keypoint twice; each changes places with one other")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_order(self) -> tuple[int, ...]:
        """For each keypoint of a mirrored image, the index it had before."""
        order = list(range(len(self)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)


COCO_PERSON = Skeleton(
    names=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    flip_pairs=tuple((i, i + 1) for i in range(1, 17, 2)),
    bones=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
        0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

SKELETONS: Mapping[str, Skeleton] = {"coco_person": COCO_PERSON}
DEFAULT_SIGMA = 0.05


def get_skeleton(name: str | Path | Mapping[str, Any] | Skeleton) -> Skeleton:
    """Return a skeleton by name (``coco_person``), from a YAML file, or from what one would hold.

    The file has ``names``, and may have ``flip_pairs`` and ``bones`` (pairs of names or of indices
    from 0) and ``sigmas`` (a number for each, or one for all; 0.05 where it is left out). Where
    ``flip_pairs`` is left out, ``left_x`` and ``right_x`` are a pair.

    Raises:
        ZooError: If there is no such skeleton, or the file does not describe one.
    """
    if isinstance(name, Skeleton):
        return name
    if isinstance(name, Mapping):
        return _from_content(dict(name), "keypoints")
    if str(name) in SKELETONS:
        return SKELETONS[str(name)]
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise unknown("skeleton", str(name), SKELETONS, "or the path of a .yaml file")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ZooError(f"cannot read the skeleton {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ZooError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    return _from_content(content, str(path))


def _from_content(content: Any, path: str) -> Skeleton:
    if not isinstance(content, dict) or not isinstance(content.get("names"), list):
        raise ZooError(f"{path}: expected a list of names under 'names'")
    known = ("names", "flip_pairs", "bones", "sigmas")
    for key in content:
        if key not in known:
            raise unknown(f"key of {path}", str(key), known)
    names = tuple(str(name) for name in content["names"])

    def index(item: Any, what: str) -> int:
        if isinstance(item, int) and not isinstance(item, bool):
            return item
        if str(item) not in names:
            raise unknown(f"keypoint in {what} of {path}", str(item), names)
        return names.index(str(item))

    def pairs(what: str) -> tuple[tuple[int, int], ...]:
        found = []
        for pair in content.get(what) or []:
            if not isinstance(pair, list) or len(pair) != 2:
                raise ZooError(f"{path}: {what} has {pair!r}; expected pairs")
            found.append((index(pair[0], what), index(pair[1], what)))
        return tuple(found)

    sigmas = content.get("sigmas", DEFAULT_SIGMA)
    many = sigmas if isinstance(sigmas, list) else [sigmas] * len(names)
    try:
        numbers = tuple(float(sigma) for sigma in many)
    except (TypeError, ValueError):
        raise ZooError(f"{path}: sigmas is {sigmas!r}; expected numbers") from None
    flips = pairs("flip_pairs") if "flip_pairs" in content else left_right_pairs(names)
    return Skeleton(names, flips, pairs("bones"), numbers)


def left_right_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of names that differ in ``left`` and ``right`` alone."""
    pairs = []
    for i, name in enumerate(names):
        other = name.replace("left", "right")
        if other != name and other in names:
            pairs.append((i, names.index(other)))
    return tuple(pairs)
