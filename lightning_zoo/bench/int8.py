"""INT8 classifiers against fp32 ones, and against torchvision's quantized ones where it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from lightning_zoo import int8
from lightning_zoo.bench.networks import has_torchvision
from lightning_zoo.models.quantization.eager import on_engine, supported_engines
from lightning_zoo.models.registry import get_entry
from lightning_zoo.timing import interleaved, torch_threads

# Times as fast as fp32 in eager torch, at batch 8 and one thread
GOALS = {"resnet18": 4.0, "mobilenet_v2": 5.0}
AUXILIARY = ("googlenet", "inception_v3")


def int8_benchmark(
    repeats: int, *, threads: int | None = 1, names: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each network and batch: seconds of a pass, and times as fast as fp32."""
    with torch_threads(threads) as count, torch.inference_mode():
        for name in names or GOALS:
            sides = networks(name)
            for batch in (1, 8):
                side = max(224, get_entry(name).min_size)
                x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
                work = {key: lambda m=m, x=x: m(x) for key, m in sides.items()}
                best = interleaved(work, repeats)
                yield row(name, best) | {"shape": list(x.shape), "threads": count}


def networks(name: str) -> dict[str, Any]:
    """Return what is measured: fp32, each engine, and torchvision's quantized network."""
    heads = {"aux_logits": False, "init_weights": False} if name in AUXILIARY else {}
    network = get_entry(name, "classification").load_builder()(**heads).eval()
    side = max(224, get_entry(name).min_size)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(False), torch.no_grad():
        prepared = int8.prepare(network, images)
        prepared(images)
        program = int8.convert(prepared)
        engines = [e for e in int8.available_engines() if e != "reference"]
        sides: dict[str, Any] = {"fp32": network}
        sides |= {engine: int8.lower(program, engine) for engine in engines}
        if has_torchvision() and (theirs := quantized_by_torchvision(name)) is not None:
            sides["torchvision"] = theirs
    return sides


def quantized_by_torchvision(name: str) -> Any:
    """Return torchvision's network with random INT8 weights, None where it has none.

    It runs on torch's own choice for this machine; the builders of the MobileNets choose qnnpack,
    which is made for ARM.
    """
    import torchvision

    builder = getattr(torchvision.models.quantization, name, None)
    if builder is None:
        return None
    engine = next(e for e in ("x86", "fbgemm", "qnnpack") if e in supported_engines())
    with warnings.catch_warnings(), on_engine(engine):
        warnings.simplefilter("ignore")  # they say that eager quantization is deprecated
        network = builder(weights=None, quantize=True).eval()
        torch.backends.quantized.engine = engine  # the builder sets its own
        network.load_state_dict(network.state_dict())  # packs the weights for this engine

    def run(images: torch.Tensor) -> torch.Tensor:
        with on_engine(engine):
            return network(images)

    return run


def row(name: str, best: dict[str, float]) -> dict[str, Any]:
    """Return the figures of a network."""
    found: dict[str, Any] = {"benchmark": "int8", "model": name}
    found |= {f"{side}_s": round(value, 4) for side, value in best.items()}
    ours = min(value for side, value in best.items() if side in int8.ENGINES)
    found |= {
        f"{side}_speedup": round(best["fp32"] / value, 2)
        for side, value in best.items()
        if side != "fp32"
    }
    if name in GOALS:
        found |= {"goal": GOALS[name], "reached": best["fp32"] / ours >= GOALS[name]}
    if "torchvision" in best:
        found["ratio_of_torchvision"] = round(ours / best["torchvision"], 3)
    return found
