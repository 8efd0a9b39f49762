"""Weights, inputs and comparisons of the golden data, which was recorded from torchvision.

The values of a tensor depend on its name and shape alone, so that no weights need be kept.
``golden/VERSION`` says which torchvision the numbers are of.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"


def load_golden(name: str) -> dict[str, Any]:
    path = GOLDEN / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return json.load(file)


@functools.lru_cache(maxsize=2)
def large_normal(key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a large tensor, kept for the next network that has it: all of VGG's linear layers."""
    return normal(key, shape)


def normal(key: str, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    values = rng.standard_normal(shape)
    values *= math.sqrt(2.0 / int(np.prod(shape[1:])))
    return torch.from_numpy(values.astype(np.float32))


def fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values for a state dict, drawn from the names; its metadata is kept."""
    filled = type(state)()
    if hasattr(state, "_metadata"):
        filled._metadata = state._metadata
    for key, tensor in state.items():
        shape = tuple(tensor.shape)
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        if not tensor.is_floating_point():
            filled[key] = torch.zeros(shape, dtype=tensor.dtype)
        elif key.endswith("running_var"):
            filled[key] = torch.tensor(rng.uniform(0.5, 1.5, shape), dtype=tensor.dtype)
        elif tensor.ndim >= 2:
            filled[key] = (large_normal if tensor.numel() > 1e7 else normal)(key, shape)
        elif key.endswith("weight"):
            filled[key] = torch.tensor(rng.uniform(0.5, 1.5, shape), dtype=tensor.dtype)
        else:
            filled[key] = torch.tensor(rng.standard_normal(shape) * 0.1, dtype=tensor.dtype)
    return filled


def inputs(name: str, shape: list[int]) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(f"input:{name}".encode()))
    return torch.tensor(rng.standard_normal(tuple(shape)), dtype=torch.float32)


def no_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0


def calibrate(model: nn.Module, forward: Callable[[], object]) -> None:
    """Set the running statistics of every batch norm to those of one batch, then evaluate.

    A seventh of the channels barely vary afterwards, so that a wrong eps shows.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    dropouts = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    rates = [dropout.p for dropout in dropouts]
    model.train()
    no_dropout(model)
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            forward()
    for dropout, rate in zip(dropouts, rates, strict=True):
        dropout.p = rate
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        with torch.no_grad():
            norm.running_var[::7] *= 1e-4
            norm.weight[::7] *= 1e-2
    model.eval()


def assert_close(
    got: list[float], want: list[float], what: str, rtol: float = 2e-3, atol: float = 2e-4
) -> None:
    a, b = np.asarray(got, dtype=float), np.asarray(want, dtype=float)
    assert a.shape == b.shape, what
    scale = max(1e-6, float(np.abs(b).max()))
    error = float(np.abs(a - b).max())
    assert error <= atol + rtol * scale, f"{what}: off by {error:.4g} (largest value {scale:.4g})"


def assert_digest(tensor: Tensor, want: dict[str, Any], what: str) -> None:
    flat = tensor.detach().double().reshape(-1)
    assert len(flat) > max(want["at"]), what
    assert_close(flat[want["at"]].tolist(), want["values"], what)
    spread = [float(flat.mean()), float(flat.std(unbiased=False))]
    assert_close(spread, [want["mean"], want["std"]], f"mean and std of {what}")


def assert_gradients(model: nn.Module, want: dict[str, float]) -> None:
    parameters = dict(model.named_parameters())
    for name, norm in want.items():
        gradient = parameters[name].grad
        assert gradient is not None, name
        got = float(gradient.double().norm())
        assert_close([got], [norm], f"gradient of {name}", rtol=2e-2, atol=1e-4)


def constant(name: str) -> float:
    """Return a number in (1, 2) that belongs to a tensor's name and is exact in float16."""
    return 1.0 + (1 + zlib.crc32(name.encode()) % 1022) / 1024


def write_stand_in(
    path: Path,
    model: nn.Module,
    *,
    rename: Callable[[str], str] = str,
    keep: Callable[[str], bool] = lambda name: True,
    dtype: torch.dtype = torch.float32,
    metadata: bool = True,
) -> None:
    """Write a small file with the layout of a published one: each tensor is one constant.

    Args:
        path: The file.
        model: Gives names and shapes; may be on the meta device.
        rename: Name in the file of a tensor.
        keep: Whether a tensor is in the file.
        dtype: Of the floating-point tensors.
        metadata: Keep the versions of the modules.
    """
    own = model.state_dict()
    state = type(own)()
    if metadata:
        state._metadata = own._metadata
    for name, tensor in own.items():
        if keep(name):
            is_float = tensor.is_floating_point()
            value = torch.tensor(constant(name) if is_float else 1)
            state[rename(name)] = value.to(dtype if is_float else tensor.dtype).expand(tensor.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
