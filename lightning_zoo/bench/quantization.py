"""INT8 networks against torchvision's on the same engine and weights, and against our float ones.

Images of 224 x 224 (Inception v3: 299), batches of 1 and 8, one thread. The activations' ranges are
those of one random batch, as the time does not depend on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lightning_zoo.bench.networks import GOAL, has_torchvision, published
from lightning_zoo.models import get_entry, get_model
from lightning_zoo.models.quantization.eager import convert, on_engine, supported_engines
from lightning_zoo.timing import interleaved, torch_threads

BATCHES = (1, 8)


def quantization_benchmark(
    repeats: int = 5, *, threads: int = 1, names: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each network, engine and batch: milliseconds, and their ratios.

    Args:
        repeats: Measurements of each side, which take turns; the least counts.
        threads: Threads of torch.
        names: Networks; None takes all published ones.
    """
    with torch_threads(threads):
        for name in names or published("quantization"):
            sides = _networks(name)
            pre = get_entry(name, "quantization").get_weights().preprocessing
            assert pre is not None
            assert pre.crop is not None
            for engine in supported_engines():
                sides["ours"].to_engine(engine)
                if "torchvision" in sides:
                    with on_engine(engine):
                        sides["torchvision"].load_state_dict(sides["ours"].state_dict())
                for n in BATCHES:
                    images = torch.randn(n, 3, pre.crop, pre.crop)
                    best = interleaved(
                        {side: _call(network, images, engine) for side, network in sides.items()},
                        repeats,
                    )
                    yield _row(name, engine, n, threads, best)


def _row(
    name: str, engine: str, batch: int, threads: int, best: dict[str, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {"benchmark": "quantization", "what": "evaluation", "model": name}
    row |= {"engine": engine, "batch": batch, "threads": threads}
    row |= {f"{side}_ms": round(1000 * seconds, 3) for side, seconds in best.items()}
    row["speedup"] = round(best["float"] / best["ours"], 2)
    if "torchvision" in best:
        ratio = best["ours"] / best["torchvision"]
        row |= {"ratio": round(ratio, 3), "goal": GOAL, "reached": ratio <= GOAL}
    return row


def _call(network: Any, images: torch.Tensor, engine: str) -> Callable[[], None]:
    """Return a function that lets a network do something; torchvision's needs the setting."""

    def call() -> None:
        with torch.inference_mode(), on_engine(engine):
            network(images)

    return call


def _networks(name: str) -> dict[str, Any]:
    """Return the network as INT8, ours and torchvision's where it is there, and as float."""
    heads = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    ours: Any = get_model(f"quantization/{name}", **heads)
    engine = get_entry(name, "quantization").get_weights().backend
    convert(ours, str(engine), [torch.randn(1, 3, 224, 224)])
    sides = {"float": get_model(name, **heads).eval(), "ours": ours}
    if has_torchvision():
        import torchvision

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's own, of the deprecated functions
            make = getattr(torchvision.models.quantization, name)
            sides["torchvision"] = make(weights=None, quantize=True, **heads)
    return sides
