"""Model constructors and their published weights: find, download, check and load a file.

A family writes a plain builder under :func:`register_model`; what users call is the constructor
that the decorator makes of it, ``resnet18(pretrained=False, progress=True, *, weights=None, ...)``.
Files are always read with ``weights_only=True`` and loaded strictly.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import inspect
import logging
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from lightning_zoo.errors import ZooError, nearest
from lightning_zoo.models import plain_files
from lightning_zoo.models.registry import ModelEntry, Weights, registry

M = TypeVar("M", bound=nn.Module)
M_co = TypeVar("M_co", bound=nn.Module, covariant=True)
# Arguments beside num_classes that a head's size follows; published files have their defaults.
OTHER_HEADS = ("num_keypoints",)

StateDict = dict[str, Any]
Layout = Mapping[str, tuple[int, ...] | None]

logger = logging.getLogger("lightning_zoo")


# ---------------------------------------------------------------------------------------------
# What was loaded


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a model came from a file; ``str()`` is one line, :meth:`table` is all.

    Attributes:
        model: Name of the constructor.
        source: File the tensors came from.
        copied: Names of the model's tensors that hold the file's values.
        reshaped: Those of them whose shape the loader adapted to the file's.
        new: Names of the model's tensors that start anew: the head of another ``num_classes``.
        dropped: Names of the file's tensors that the model has no place for: an auxiliary head.
        filled: Counters of batch norms (and ranges that are fixed) that the file is too old to
            have; they have their first values.
    """

    model: str
    source: Path
    copied: tuple[str, ...]
    reshaped: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.model}: {len(self.copied)} tensors copied from {self.source.name}"
        for what in ("reshaped", "new", "dropped"):
            names = getattr(self, what)
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                text += f", {len(names)} {what}: {', '.join(names[:4])}{more}"
        return text

    def table(self) -> str:
        """Return a line per tensor: what became of it, and its name."""
        rows = [(w, n) for w in ("new", "reshaped", "dropped", "filled") for n in getattr(self, w)]
        rows += [("copied", name) for name in self.copied if name not in self.reshaped]
        return "\n".join([f"{self.model} from {self.source}", *(f"{w:<9}{n}" for w, n in rows)])


# ---------------------------------------------------------------------------------------------
# Structure without values

_STRUCTURE_ONLY: ContextVar[bool] = ContextVar("structure_only", default=False)


@contextlib.contextmanager
def structure_only() -> Iterator[None]:
    """Let constructors build what they would have built, without fetching or reading any file.

    Frozen norms, their eps, the layers that train and the heads are those of the weights that are
    asked for, the values are not: a checkpoint brings them.
    """
    token = _STRUCTURE_ONLY.set(True)
    try:
        yield
    finally:
        _STRUCTURE_ONLY.reset(token)


def is_structure_only() -> bool:
    """Whether constructors leave the values out, see :func:`structure_only`."""
    return _STRUCTURE_ONLY.get()


# ---------------------------------------------------------------------------------------------
# The constructor that users call


class NotDownloadedError(ZooError):
    """A published file that could not be had.

    Attributes:
        url: Where it is published.
        path: Where it was to go.
        reason: What went wrong.
    """

    def __init__(self, text: str, url: str, path: Path, reason: str) -> None:
        super().__init__(text)
        self.url, self.path, self.reason = url, path, reason


class UnknownArgumentError(ZooError, TypeError):
    """An argument that a constructor does not take."""


class Constructor(Protocol[M_co]):
    """A model's constructor; keyword arguments beyond these are the network's own."""

    __name__: str

    def __call__(
        self,
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: str | Path | None = None,
        **kwargs: Any,
    ) -> M_co:
        """Build the model, with the weights that are asked for."""


@overload
def register_model(builder: Callable[..., M], /) -> Constructor[M]: ...
@overload
def register_model(
    *,
    rename: Callable[[str], str] | None = None,
    finish: Callable[[Any, Weights], None] | None = None,
    pretrained_args: Mapping[str, Any] | None = None,
    weights_of: str | None = None,
) -> Callable[[Callable[..., M]], Constructor[M]]: ...
def register_model(
    builder: Callable[..., Any] | None = None,
    /,
    *,
    rename: Callable[[str], str] | None = None,
    finish: Callable[[Any, Weights], None] | None = None,
    pretrained_args: Mapping[str, Any] | None = None,
    weights_of: str | None = None,
) -> Any:
    """Make a builder the constructor of a model: add ``pretrained``, ``progress`` and ``weights``.

    The constructor takes ``pretrained=True`` (the weights that torchvision's flag loads),
    ``weights="IMAGENET1K_V1"`` (a published name, ``"DEFAULT"`` for the best) or
    ``weights="path/of/a/file"`` (a state dict, or a Lightning checkpoint of our tasks). With
    another ``num_classes`` than the file's, everything but the head is loaded. What was loaded
    stands in ``model.load_report``.

    Its signature shows the builder's own arguments, and for ``**kwargs`` the optional ones of the
    network that the builder is annotated to return. The builder has to work under
    ``torch.device("meta")``: that is how the head is found. Two arguments of a builder are set here
    and are no options: ``progress``, and ``trained``, whether all values come from a file.

    Args:
        builder: Function that returns the network; its row is found in the registry by its address.
        rename: Today's name of a tensor from its name in the file (the same where nothing changed).
        finish: Called with the model and the published weights once they are loaded.
        pretrained_args: Defaults of builder arguments where published weights are loaded.
        weights_of: Task whose model of the same name has the published weights; None for the
            builder's own row.
    """
    if builder is None:
        return functools.partial(
            register_model,
            rename=rename,
            finish=finish,
            pretrained_args=pretrained_args,
            weights_of=weights_of,
        )
    options = _options(builder)
    set_here = [n for n in ("progress", "trained") if options.pop(n, None) is not None]
    is_open = any(p.kind is p.VAR_KEYWORD for p in options.values())
    name = builder.__name__

    def constructor(
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: str | Path | None = None,
        **kwargs: Any,
    ) -> Any:
        for key in kwargs:
            if key not in options and not is_open:
                guess = nearest(key, options)
                hint = f"did you mean {guess}?" if guess else f"it takes {', '.join(options)}"
                raise UnknownArgumentError(f"{name}() has no argument {key!r}; {hint}")
        published, path = weights_source(name, find_entry(builder, weights_of), pretrained, weights)
        ours = {"progress": progress, "trained": published is not None or path is not None}
        kwargs.update({n: ours[n] for n in set_here})
        if published is not None:
            kwargs = {**published.build_args, **(pretrained_args or {}), **kwargs}
            model, layout = _build_published(builder, options, kwargs, published)
            if is_structure_only():
                if finish is not None:
                    finish(model, published)
                return model
            path = path or fetch(published, progress=progress)
            state = read_state_dict(path, rename, cached=path.parent == checkpoint_dir())
        elif path is not None and not is_structure_only():
            state = read_state_dict(path, rename)
            model = builder(**kwargs)
            layout = _local_layout(builder, options, kwargs, model, state, path)
        else:
            return builder(**kwargs)
        report = load_state_dict(model, state, name=name, source=path, layout=layout)
        object.__setattr__(model, "load_report", report)
        if published is not None and finish is not None:
            finish(model, published)
        logger.info("%s", report)
        return model

    own = inspect.signature(constructor, eval_str=True)
    shown = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    signature = own.replace(
        parameters=[*shown, *options.values()],
        return_annotation=_signature(builder).return_annotation,
    )
    functools.update_wrapper(constructor, builder)
    constructor.__signature__ = signature  # type: ignore[attr-defined]
    constructor.__annotations__ = {n: p.annotation for n, p in signature.parameters.items()} | {
        "return": signature.return_annotation
    }
    constructor.rename = rename  # type: ignore[attr-defined]
    return constructor


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a signature whose annotations are types, or texts where one is for checkers alone."""
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:
        return inspect.signature(function)


def _options(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a builder and the optional ones of the network that it returns."""
    signature = _signature(builder)
    network = signature.return_annotation
    functions = [builder]
    if inspect.isclass(network) and network is not nn.Module:
        functions += [vars(c)["__init__"] for c in network.__mro__ if "__init__" in vars(c)]
    options: dict[str, inspect.Parameter] = {}
    rest: inspect.Parameter | None = None
    for function in functions:  # each passes what it does not know on to the next
        rest = None
        for n, p in _signature(function).parameters.items():
            if p.kind is p.VAR_KEYWORD:
                rest = p
            elif p.default is not p.empty or function is builder:
                options.setdefault(n, p.replace(kind=p.KEYWORD_ONLY))
        if rest is None:
            break
    return options if rest is None else {**options, rest.name: rest}


def find_entry(builder: Callable[..., Any], task: str | None = None) -> ModelEntry | None:
    """Return the row of the registry that points to a builder, None where there is none.

    With a task: the row of its model of the same name.
    """
    if task is not None:
        return registry().get((task, builder.__name__))
    address = f"{builder.__module__}:{builder.__name__}"
    return next((entry for entry in registry().values() if entry.builder == address), None)


def weights_source(
    name: str, entry: ModelEntry | None, pretrained: bool, weights: str | Path | None
) -> tuple[Weights | None, Path | None]:
    """Return the published weights that are meant and the local file, each None where it is not."""
    if not isinstance(pretrained, bool):
        raise TypeError(
            f"{name}: pretrained is True or False, not {pretrained!r}; "
            "name weights or a file with weights="
        )
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise TypeError(f"{name}: weights is a name or a path, not {type(weights).__name__}")
    flagged = None
    if pretrained:
        if entry is None:
            raise ZooError(f"no published weights for {name}; pass a file of your own as weights=")
        flagged = entry.get_weights(entry.pretrained) if entry.pretrained else None
        if flagged is None and weights is None:
            entry.get_weights()  # raises where nothing is published
            names = " or ".join(f"weights={n!r}" for n in entry.weights)
            raise ZooError(f"pretrained=True is not defined for {name}; pass {names}")
    if weights is None:
        return flagged, None
    known = {} if entry is None else dict(entry.weights)
    asked, path = None, None
    if isinstance(weights, str) and (weights == "DEFAULT" or weights in known):
        if entry is None:
            raise ZooError(f"no published weights for {name}; pass a file of your own as weights=")
        asked = entry.get_weights(weights)
    else:
        path = Path(weights).expanduser()
        asked = next((w for w in known.values() if w.file_name == path.name), None)
        if not path.is_file() and not is_structure_only():
            is_name = isinstance(weights, str) and Path(weights).name == weights
            if is_name and not path.suffix and entry is not None:
                entry.get_weights(str(weights))  # raises, and says which names there are
            raise ZooError(
                f"{name}: weights={str(weights)!r} is neither a file nor a name of weights"
                + (f"; the names are {', '.join(known)}" if known else "")
            )
    if pretrained and (asked is None or asked != flagged):
        raise ZooError(
            f"{name}: pretrained=True loads {flagged.name if flagged else 'nothing'} but "
            f"weights={str(weights)!r}; pass one of the two"
        )
    return asked, path


# ---------------------------------------------------------------------------------------------
# Loading


def shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of every tensor of a state dict by name, None for what is no tensor.

    Of a quantized layer's pair of weight and bias it is the weight's.
    """
    firsts = {n: v[0] if isinstance(v, tuple) else v for n, v in state.items()}
    return {n: tuple(v.shape) if isinstance(v, Tensor) else None for n, v in firsts.items()}


def is_int8(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is of one of ``models.quantization``'s INT8 networks."""
    return any(name.startswith("quant.") for name in state)


def _meta_layout(builder: Callable[..., Any], kwargs: Mapping[str, Any]) -> Layout:
    """Return names and shapes of the state dict that ``builder(**kwargs)`` would have."""
    with torch.device("meta"):
        return shapes(builder(**kwargs).state_dict())


def _build_published(
    builder: Callable[..., Any],
    options: Mapping[str, inspect.Parameter],
    kwargs: dict[str, Any],
    weights: Weights,
) -> tuple[Any, Layout | None]:
    """Build the model that is asked for; return it with the file's layout where that is another."""
    of_file = {**kwargs, **weights.build_args}
    if "num_classes" in kwargs or "num_classes" in options:
        of_file["num_classes"] = weights.num_classes
    defaults = {n: p.default for n, p in options.items()}
    of_file |= {n: defaults[n] for n in OTHER_HEADS if n in kwargs and n in options}
    asked, in_file = {**defaults, **kwargs}, {**defaults, **of_file}
    layout = None if asked == in_file else _meta_layout(builder, of_file)
    if "init_weights" in options and asked.get("num_classes") == in_file.get("num_classes"):
        kwargs = {"init_weights": False, **kwargs}  # every value comes from the file
    return builder(**kwargs), layout


def _local_layout(
    builder: Callable[..., Any],
    options: Mapping[str, inspect.Parameter],
    kwargs: Mapping[str, Any],
    model: nn.Module,
    state: StateDict,
    path: Path,
) -> Layout | None:
    """Return the layout of a local file whose head has another number of classes, else None.

    Raises:
        ZooError: If the caller did not say how many classes the new head should have.
    """
    asked, found = shapes(model.state_dict()), shapes(state)
    other = {n for n in asked if n in found and found[n] != asked[n]}
    default = options["num_classes"].default if "num_classes" in options else None
    classes = kwargs.get("num_classes", default)
    if not other or not isinstance(classes, int):
        return None
    probe = _meta_layout(builder, {**kwargs, "num_classes": classes + 1})
    if not all(n in probe and probe[n] != asked[n] for n in other):
        return None  # not the head alone: strict loading names the tensors
    for tensor in other:
        sizes = zip(asked[tensor] or (), probe[tensor] or (), found[tensor] or (), strict=False)
        step = next(((a, p - a, f) for a, p, f in sizes if p != a), None)
        if step is not None:
            in_file = classes + (step[2] - step[0]) // step[1]
            if "num_classes" not in kwargs:
                raise ZooError(
                    f"{builder.__name__}: {path.name} holds {in_file} classes, the default is "
                    f"{classes}; pass num_classes={in_file} to load its head, "
                    f"num_classes={classes} for a new one"
                )
            return _meta_layout(builder, {**kwargs, "num_classes": in_file})
    return None


def load_state_dict(
    model: nn.Module,
    state: StateDict,
    *,
    name: str,
    source: Path,
    layout: Layout | None = None,
) -> LoadReport:
    """Load a state dict strictly, but for the tensors in which ``layout`` differs from the model.

    Args:
        model: Network that receives the values; its own dtypes stay.
        state: The file's tensors, under today's names; changed on the way.
        name: Name of the model, for texts.
        source: Where the state comes from, for texts.
        layout: Names and shapes that the file has to have; left out, those of ``model``. What has
            another shape in the model starts anew (the head), what the model lacks is dropped.

    Raises:
        ZooError: If anything else is missing, too much or of another shape; the text names it.
    """
    own = model.state_dict()
    before = shapes(own)
    layout = before if layout is None else layout
    found = shapes(state)
    new = [n for n in before if n in layout and layout[n] != before[n]]
    dropped = [n for n in layout if n not in before]
    for tensor in (*new, *dropped):
        if tensor in found and found[tensor] == layout[tensor]:
            del state[tensor]
        elif not tensor.endswith("num_batches_tracked"):
            raise misfit(name, source, found, layout)
    copied = list(state)
    state.update((tensor, own[tensor]) for tensor in new)
    try:
        model.load_state_dict(state)
    except (RuntimeError, KeyError) as error:  # the latter: a quantized layer's
        raise misfit(name, source, found, layout, error) from None
    after = shapes(model.state_dict())
    loaded = set(copied)
    for n, parameter in model.named_parameters():
        if n in loaded:  # goes along where a larger network takes parts of this one: its backbone
            parameter.from_file = True  # type: ignore[attr-defined]
    return LoadReport(
        model=name,
        source=source,
        copied=tuple(copied),
        reshaped=tuple(n for n in copied if n in before and before[n] != after[n]),
        new=tuple(new),
        dropped=tuple(n for n in dropped if n in found),
        filled=tuple(n for n in after if n not in found and n not in new),
    )


def from_file(network: nn.Module) -> frozenset[str]:
    """Return the names of the parameters whose values a file brought, a backbone's included."""
    named = network.named_parameters()
    return frozenset(n for n, parameter in named if getattr(parameter, "from_file", False))


def misfit(
    name: str, source: Path, found: Layout, want: Layout, error: Exception | None = None
) -> ZooError:
    """Return the error for a file that does not fit: the first few tensors of each kind."""
    if is_int8(found) and not is_int8(want):
        return ZooError(
            f"{source.name} holds INT8 weights; load it with "
            f"models.quantization.{name}(weights=..., quantize=True)"
        )
    missing = [n for n in want if n not in found]
    counters = [n for n in missing if n.endswith("num_batches_tracked")]
    if len(counters) < len(missing):  # torch fills in the counters that old files lack
        missing = [n for n in missing if n not in counters]
    extra = [n for n in found if n not in want]
    parts = []
    for what, names in (("it lacks", missing), ("it has too many:", extra)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{what} {', '.join(names[:3])}{more}")
    other = [n for n in want if n in found and found[n] != want[n]]
    for n in other[:3]:
        parts.append(f"{n} is {found[n]}, expected {want[n]}")
    if len(other) > 3:
        parts.append(f"{len(other) - 3} more shapes differ")
    if not parts:
        parts.append(" ".join(str(error).split()))
    return ZooError(f"{source.name} does not fit {name}: {'; '.join(parts)}")


def read_state_dict(
    path: Path, rename: Callable[[str], str] | None = None, *, cached: bool = False
) -> StateDict:
    """Read a file's tensors to the CPU, under today's names and with the metadata of its modules.

    Args:
        path: A state dict, or a Lightning checkpoint whose network is called ``model``.
        rename: Today's name of a tensor from its name in the file.
        cached: The file was downloaded and may be deleted.

    Raises:
        ZooError: If the file cannot be read or holds something else.
    """
    return state_dict_of(read_file(path, cached=cached), path, rename)


def read_file(path: Path, *, cached: bool = False) -> Any:
    """Read what a file holds to the CPU, tensors and plain data alone.

    Args:
        path: The file.
        cached: The file was downloaded and may be deleted.

    Raises:
        ZooError: If the file cannot be read, or holds something else.
    """
    remedy = "delete it, and it is downloaded again" if cached else "replace it"
    return plain_files.read(path, remedy=remedy)


def state_dict_of(
    content: Any, path: Path, rename: Callable[[str], str] | None = None
) -> StateDict:
    """Return the tensors in what :func:`read_file` read, see :func:`read_state_dict`."""
    state = content
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
        if any(key.startswith("model.") for key in state):
            state = _renamed(state, lambda key: key.removeprefix("model."), only="model.")
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ZooError(f"{path} holds no state dict; save model.state_dict()")
    return _renamed(state, rename or (lambda key: key))


def _renamed(
    state: Mapping[str, Any], rename: Callable[[str], str], *, only: str = ""
) -> StateDict:
    """Rename the tensors whose names start with ``only``; the modules' versions are kept."""
    renamed: OrderedDict[str, Any] = OrderedDict()
    for key, value in state.items():
        if key.startswith(only):
            renamed[rename(key)] = value
    if len(renamed) != sum(key.startswith(only) for key in state):
        raise ZooError("two tensors of the file would have the same name")
    metadata = getattr(state, "_metadata", None)  # versions of modules: batch norm, MNASNet
    if metadata is not None:
        prefix = only.rstrip(".")
        renamed._metadata = OrderedDict(  # type: ignore[attr-defined]
            (key[len(prefix) :].lstrip("."), value)
            for key, value in metadata.items()
            if not prefix or key == prefix or key.startswith(only)
        )
    return renamed


# ---------------------------------------------------------------------------------------------
# Cache and download


def checkpoint_dir() -> Path:
    """Return the folder of downloaded weights: torch.hub's, or that of the older variable."""
    folder = os.environ.get("TORCH_MODEL_ZOO")
    if folder:
        return Path(folder).expanduser()
    return Path(torch.hub.get_dir(), "checkpoints")


def fetch(weights: Weights, *, progress: bool = True) -> Path:
    """Return the file of published weights, downloaded where the cache does not have it.

    Raises:
        ZooError: If the download fails; no part of a file is left behind.
    """
    path = checkpoint_dir() / weights.file_name
    if not path.is_file():
        download(weights.url, path, sha256_prefix=weights.sha256_prefix, progress=progress)
    return path


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> None:
    """Download a file, check it and put it into its place in one step.

    Processes that download the same file at the same time each write their own and replace each
    other's with the same bytes.

    Args:
        url: Address of the file.
        path: Where it goes.
        sha256_prefix: First hex digits that its SHA-256 has to have.
        progress: Show a progress line if stderr is a terminal.
        timeout: Seconds without an answer until the download is given up.

    Raises:
        ZooError: If the file cannot be had whole; the text says why and what to do.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    logger.info("downloading %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            digest = _receive(url, file, path.name, timeout, progress and sys.stderr.isatty())
            file.flush()
            os.fsync(file.fileno())
        if sha256_prefix and not digest.startswith(sha256_prefix.lower()):
            raise _DownloadError(
                f"its SHA-256 starts with {digest[: len(sha256_prefix)]}, not {sha256_prefix}"
            )
        part.replace(path)
    except urllib.error.HTTPError as error:
        error.close()
        raise _not_downloaded(url, path, f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _not_downloaded(url, path, str(error.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _not_downloaded(url, path, str(error) or type(error).__name__) from None
    finally:
        with contextlib.suppress(OSError):  # there is none if all went well or nothing was made
            part.unlink()


class _DownloadError(OSError):
    """What arrived is not the file."""


def _receive(url: str, file: Any, name: str, timeout: float, show: bool) -> str:
    """Write what an address answers to a file; return its SHA-256 in hex."""
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "lightning_zoo"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None else None
        received, shown = 0, 0.0
        while chunk := response.read(1 << 20):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            if show and (time.monotonic() - shown > 0.1 or received == total):
                shown = time.monotonic()
                of = f"of {total / 2**20:.1f} MiB, {received / total:4.0%}" if total else "MiB"
                sys.stderr.write(f"\r{name}: {received / 2**20:.1f} {of}")
                sys.stderr.flush()
        if show:
            sys.stderr.write("\n")
    if total is not None and received != total:
        raise _DownloadError(f"the connection ended after {received} of {total} bytes")
    return digest.hexdigest()


def _not_downloaded(url: str, path: Path, reason: str) -> NotDownloadedError:
    text = (
        f"could not download {path.name} from {url}: {reason}. Try again, or put the file into "
        f"{path.parent} by hand (set TORCH_HOME for another cache), or pass its path as "
        "weights=, or do without: weights=None, pretrained_backbone=False"
    )
    return NotDownloadedError(text, url, path, reason)
