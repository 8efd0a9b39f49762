"""The constructor of a quantizable classifier: float or INT8, with or without published weights."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub
from lightning_zoo.models.quantization.eager import (
    Quantizable,
    check_engine,
    convert,
    convert_qat,
    prepare_qat,
)
from lightning_zoo.models.registry import ModelEntry, Weights, registry

M = TypeVar("M", bound=Quantizable)
M_co = TypeVar("M_co", bound=Quantizable, covariant=True)
StateDict = dict[str, Any]

logger = logging.getLogger("lightning_zoo")


class QuantizableConstructor(Protocol[M_co]):
    """A model's constructor; keyword arguments beyond these are the network's own."""

    __name__: str

    def __call__(
        self,
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: str | Path | None = None,
        quantize: bool = False,
        backend: str | None = None,
        **kwargs: Any,
    ) -> M_co:
        """Build the model, with the weights that are asked for."""


@overload
def register_quantizable(builder: Callable[..., M], /) -> QuantizableConstructor[M]: ...
@overload
def register_quantizable(
    *, pretrained_args: Mapping[str, Any]
) -> Callable[[Callable[..., M]], QuantizableConstructor[M]]: ...
def register_quantizable(
    builder: Callable[..., Any] | None = None,
    /,
    *,
    pretrained_args: Mapping[str, Any] | None = None,
) -> Any:
    """Make a builder of a float network the constructor of a quantizable model.

    Without ``quantize`` the constructor is that of the classifier: the same weights, which train
    and fine-tune in the same way. With ``quantize=True`` the network comes converted:
    ``pretrained=True`` loads the published INT8 file, ``weights`` names one of them or is a file (a
    state dict of the converted network, ours or torchvision's, or of one prepared for
    quantization-aware training), and without weights its values are random. ``backend`` is the
    engine that runs the network, left out the one that the published file was made for.

    Args:
        builder: Function that returns the float network.
        pretrained_args: Defaults of builder arguments where float weights are loaded.
    """
    if builder is None:
        return functools.partial(register_quantizable, pretrained_args=pretrained_args)
    build_float = hub.register_model(weights_of="classification", pretrained_args=pretrained_args)(
        builder
    )
    name = builder.__name__
    shown = inspect.signature(build_float)

    def constructor(
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: str | Path | None = None,
        quantize: bool = False,
        backend: str | None = None,
        **kwargs: Any,
    ) -> Any:
        entry = hub.find_entry(builder)
        assert entry is not None
        if not quantize:
            if weights in entry.weights:
                raise ZooError(f"{name}: {weights} are INT8 weights; pass quantize=True with them")
            if backend is not None:
                raise ZooError(
                    f"{name}: backend={backend!r} is an engine of INT8 networks; "
                    "pass quantize=True with it"
                )
            return build_float(pretrained, progress, weights=weights, **kwargs)
        of_float = registry()["classification", name].weights
        if weights in of_float and weights not in entry.weights:
            raise ZooError(
                f"{name}: {weights} are float weights; pass quantize=False, or one of "
                f"{', '.join(entry.weights)}"
            )
        published, path = hub.weights_source(name, entry, pretrained, weights)
        engine = backend or (published or entry.get_weights()).backend
        assert engine is not None
        check_engine(engine)
        if "aux_logits" in shown.parameters:  # no INT8 network trains
            kwargs.setdefault("aux_logits", False)
        if published is not None:
            kwargs = _args_of_file(entry, published, kwargs)
        if hub.is_structure_only() or (published is None and path is None):
            network = build_float(**kwargs)
            convert(network, engine)
            return network
        if published is not None and path is None:
            path = hub.fetch(published, progress=progress)
        assert path is not None
        state = hub.read_state_dict(path, cached=path.parent == hub.checkpoint_dir())
        if not hub.is_int8(state):
            raise ZooError(
                f"{name}: {path.name} holds float weights; load it with quantize=False, or "
                "quantize it: python -m lightning_zoo quantize"
            )
        _check_classes(name, path, state, kwargs, shown)
        if "init_weights" in shown.parameters:
            kwargs = {"init_weights": False, **kwargs}  # every value comes from the file
        network = build_float(**kwargs)
        report = _load(network, engine, state, name, path)
        object.__setattr__(network, "load_report", report)
        logger.info("%s", report)
        return network

    own = inspect.signature(constructor, eval_str=True)
    ours = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    network_own = [p for n, p in shown.parameters.items() if n not in own.parameters]
    signature = shown.replace(parameters=[*ours, *network_own])
    functools.update_wrapper(constructor, builder)
    constructor.__signature__ = signature  # type: ignore[attr-defined]
    constructor.__annotations__ = {n: p.annotation for n, p in signature.parameters.items()} | {
        "return": signature.return_annotation
    }
    return constructor


def _args_of_file(
    entry: ModelEntry, published: Weights, kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of the network that a published file fits."""
    classes = kwargs.get("num_classes", published.num_classes)
    if classes != published.num_classes:
        raise ZooError(_other_head(entry.name, published.num_classes, classes))
    return {**published.build_args, **kwargs}


def _other_head(name: str, in_file: int, asked: int) -> str:
    return (
        f"{name}: the file has {in_file} classes and num_classes is {asked}, but an INT8 head "
        "cannot be trained; pass quantize=False, train, then: python -m lightning_zoo quantize RUN"
    )


def _check_classes(
    name: str,
    path: Path,
    state: StateDict,
    kwargs: Mapping[str, Any],
    shown: inspect.Signature,
) -> None:
    """Raise a :class:`ZooError` where a file has another number of classes than is asked for."""
    last = [size for size in hub.shapes(state).values() if size is not None and len(size) == 2]
    if not last:
        return  # loading says what is missing
    in_file = last[-1][0]  # the head comes last
    default = shown.parameters["num_classes"].default
    if "num_classes" not in kwargs and in_file != default:
        raise ZooError(
            f"{name}: {path.name} holds {in_file} classes, the default is {default}; "
            f"pass num_classes={in_file}"
        )
    if kwargs.get("num_classes", in_file) != in_file:
        raise ZooError(_other_head(name, in_file, kwargs["num_classes"]))


def _load(
    network: Quantizable, engine: str, state: StateDict, name: str, path: Path
) -> hub.LoadReport:
    """Convert a network and load an INT8 file into it.

    A file of a network that was fine-tuned but not converted has the ranges of its activations, so
    that it is converted after the loading.
    """
    scales = [v for n, v in state.items() if n.endswith("weight_fake_quant.scale")]
    if scales:
        prepare_qat(network, per_channel=scales[0].numel() > 1)
    else:
        convert(network, engine)
    layout = hub.shapes(network.state_dict())
    found = hub.shapes(state)
    # PyTorch takes quantized weights of any shape
    known = [n for n, size in layout.items() if size and len(size) > 1 and n in found]
    if any(found[n] != layout[n] for n in known):
        raise hub.misfit(name, path, found, layout)
    heads = tuple(f"{head}." for head in network.heads if getattr(network, head) is None)
    surplus = {n: size for n, size in found.items() if n.startswith(heads)} if heads else {}
    report = hub.load_state_dict(
        network, state, name=name, source=path, layout={**layout, **surplus}
    )
    if scales:
        convert_qat(network, engine)
    return report
