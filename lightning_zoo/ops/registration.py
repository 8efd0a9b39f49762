from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "lightning_zoo"
Function = Callable[..., Any]


def register_op(name: str) -> Callable[[Function], Any]:
    """Make a function an op that tracing and export see as one step, ``lightning_zoo::<name>``.

    It has no gradient unless one is registered. ``torch.library.custom_op`` does the same and more,
    but the first call of such an op imports torch's compiler: two seconds and 150 MB.
    """

    def decorate(kernel: Function) -> Any:
        @functools.wraps(kernel)
        def run(*args: Any) -> Any:
            with torch.no_grad():
                return kernel(*args)

        op = f"{NAMESPACE}::{name}"
        torch.library.define(op, torch.library.infer_schema(kernel, mutates_args=()))
        torch.library.impl(op, "default", run)  # type: ignore[no-untyped-call,unused-ignore]
        return getattr(getattr(torch.ops, NAMESPACE), name)

    return decorate


def register_fake(name: str) -> Callable[[Function], Function]:
    """Make a function say what shapes the op of this name returns."""
    return torch.library.register_fake(f"{NAMESPACE}::{name}")
