"""Skeletons: COCO's person, and those that a YAML file describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_zoo.errors import ZooError
from lightning_zoo.keypoints import COCO_PERSON, Skeleton, get_skeleton, left_right_pairs


def test_coco_person() -> None:
    person = get_skeleton("coco_person")
    assert person is COCO_PERSON
    assert len(person) == 17
    assert len(person.flip_pairs) == 8
    assert person.flip_pairs == left_right_pairs(person.names)
    for a, b in person.flip_pairs:
        assert person.names[a] == person.names[b].replace("right", "left")
        assert person.sigmas[a] == person.sigmas[b]
    assert len(person.bones) == 19
    assert {i for bone in person.bones for i in bone} == set(range(17))
    # https://cocodataset.org/#keypoints-eval gives hips the largest tolerance, eyes the smallest
    assert max(person.sigmas) == person.sigmas[person.names.index("left_hip")] == 0.107
    assert min(person.sigmas) == person.sigmas[person.names.index("left_eye")] == 0.025


def test_flipping_twice_changes_nothing() -> None:
    order = COCO_PERSON.flip_order
    assert sorted(order) == list(range(17))
    assert tuple(order[i] for i in order) == tuple(range(17))
    assert order[0] == 0
    assert order[1] == 2


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text(
        "names: [wrist, left_tip, right_tip]\nbones: [[wrist, left_tip], [0, 2]]\nsigmas: 0.1\n"
    )
    hand = get_skeleton(path)
    assert hand == Skeleton(
        ("wrist", "left_tip", "right_tip"), ((1, 2),), ((0, 1), (0, 2)), (0.1, 0.1, 0.1)
    )
    assert get_skeleton(hand) is hand
    path.write_text("names: [left_a, right_a]\nflip_pairs: []\n")
    assert get_skeleton(str(path)).flip_pairs == ()


MISTAKES = {
    "[1, 2": "is no YAML",
    "bones: []": "expected a list of names under 'names'",
    "names: []": "expected at least one name",
    "names: [a]\nsigma: 1": "did you mean sigmas?",
    "names: [a, b]\nsigmas: [0.1]": "has 2 names and 1 sigmas",
    "names: [a]\nsigmas: 0": "expected numbers above 0",
    "names: [a]\nsigmas: much": "expected numbers",
    "names: [nose, b]\nbones: [[nos, b]]": "did you mean nose?",
    "names: [a, b]\nbones: [[0, 2]]": "expected two indices from 0 to 1",
    "names: [a, b]\nbones: [[0]]": "expected pairs",
    "names: [a, b, c]\nflip_pairs: [[a, b], [b, c]]": "names a keypoint twice",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_in_a_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ZooError) as caught:
        get_skeleton(path)
    assert MISTAKES[text] in str(caught.value)


def test_from_what_a_file_would_hold() -> None:
    found = get_skeleton({"names": ["left_a", "right_a"], "bones": [["left_a", 1]]})
    assert (found.flip_pairs, found.bones) == (((0, 1),), ((0, 1),))
    with pytest.raises(ZooError, match="unknown key of keypoints 'bone'"):
        get_skeleton({"names": ["a"], "bone": []})


def test_unknown(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="did you mean coco_person"):
        get_skeleton("coco_persn")
    with pytest.raises(ZooError, match="cannot read the skeleton"):
        get_skeleton(tmp_path / "none.yaml")
