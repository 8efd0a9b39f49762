from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants.

    ``eps`` is kept in the metadata of a state dict, because the networks trained on COCO in 2019
    and 2020 need 0.0 and no tensor says so; a file without it leaves ``eps`` as it is. Files of
    ordinary batch norms load as well.

    Args:
        num_features: Channels.
        eps: Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return what the input is multiplied by and what is added then, each ``(C,)``."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``(N, C, H, W)``."""
        scale, shift = self.scale_and_shift()
        return torch.addcmul(
            shift.to(x.dtype).view(1, -1, 1, 1), x, scale.to(x.dtype).view(1, -1, 1, 1)
        )

    def extra_repr(self) -> str:
        """Return what stands between the brackets of the module's text."""
        return f"{len(self.weight)}, eps={self.eps}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["eps"] = self.eps

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        self.eps = local_metadata.get("eps", self.eps)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
