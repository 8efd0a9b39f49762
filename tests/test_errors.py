"""The sentence that a wrong name gets."""

from __future__ import annotations

import pytest

from lightning_zoo.errors import ZooError, nearest, unknown

MODELS = ["alexnet", "resnet18", "resnet50", "vgg16", "VGG16_bn"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("resnet51", "resnet50"),
        ("RESNET18", "resnet18"),
        ("vgg16bn", "VGG16_bn"),
        ("alxnet", "alexnet"),
        ("qqqq", None),
        ("", None),
    ],
)
def test_nearest(name: str, found: str | None) -> None:
    assert nearest(name, MODELS) == found
    assert nearest(name, iter(MODELS)) == found
    assert nearest(name, []) is None


def test_unknown() -> None:
    assert str(unknown("model", "resnet51", MODELS)) == (
        "unknown model 'resnet51'; did you mean resnet50?"
    )
    assert str(unknown("model", "resnet51", MODELS, "see: x")) == (
        "unknown model 'resnet51'; did you mean resnet50? (see: x)"
    )
    assert str(unknown("model", "qqqq", MODELS, "see: x")) == "unknown model 'qqqq'; see: x"
    assert str(unknown("logger", "qqqq", ["wandb", "csv"])) == (
        "unknown logger 'qqqq'; expected one of csv, wandb"
    )


def test_choices_may_be_read_once() -> None:
    assert "one of csv, wandb" in str(unknown("logger", "qqqq", iter(["wandb", "csv"])))


def test_it_is_a_value_error() -> None:
    assert isinstance(unknown("model", "x", []), ZooError)
    assert issubclass(ZooError, ValueError)
