"""The arithmetic of one optimizer step: images a step = devices x images per device x batches."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_zoo.errors import ZooError


@dataclass(frozen=True)
class BatchPlan:
    """How the images of one optimizer step are spread over devices and over time.

    Attributes:
        size: Images of one optimizer step, on all devices together.
        per_device: Images of one forward pass on one device.
        devices: Number of processes that train.
        accumulate: Forward passes of each device that make one step.
        lr_scale: Factor on the recipe's learning rate; 1.0 unless the linear rule was asked for.
    """

    size: int
    per_device: int
    devices: int
    accumulate: int
    lr_scale: float = 1.0

    def steps_per_epoch(self, num_images: int, *, drop_last: bool = False) -> int:
        """Return the optimizer steps of one pass over ``num_images`` images."""
        return num_images // self.size if drop_last else -(-num_images // self.size)

    def explain(self, reference: dict[str, int] | None = None, *, unit: str = "image") -> str:
        """Return the arithmetic as one line, with what the reference ran where that is known."""
        text = (
            f"{self.size} {unit}s a step = {counted(self.devices, 'device')} x "
            f"{counted(self.per_device, unit)} x {counted(self.accumulate, 'batch', 'es')}"
        )
        if self.lr_scale != 1.0:
            text += f"; learning rate x {self.lr_scale:g} by the linear rule"
        if reference:
            text += f"; the reference ran {reference['devices']} x {reference['per_device']}"
        return text


def plan_batches(size: int, per_device: int, devices: int, *, lr_rule: str = "fixed") -> BatchPlan:
    """Spread ``size`` images a step over ``devices``, accumulating gradients where they are few.

    Args:
        size: Images of one optimizer step in the recipe.
        per_device: Images of one forward pass on one device.
        devices: Number of processes that train.
        lr_rule: ``"fixed"`` keeps the step at ``size``; ``"linear"`` takes one forward pass a step
            and scales the learning rate by the change of the step's size.

    Raises:
        ZooError: If the numbers do not divide; the text names the ways out.
    """
    for name, value in (("batch.size", size), ("batch.per_device", per_device)):
        if value < 1:
            raise ZooError(f"{name} is {value}; expected a whole number of at least 1")
    if lr_rule not in ("fixed", "linear"):
        raise ZooError(f"unknown --lr_rule {lr_rule!r}; expected fixed or linear")
    at_once = devices * per_device
    if lr_rule == "linear":
        return BatchPlan(at_once, per_device, devices, 1, lr_scale=at_once / size)
    if size % at_once:
        ways = [n for n in range(per_device, 0, -1) if size % (devices * n) == 0]
        options = [f"--batch.per_device {ways[0]}"] if ways else []
        options.append(f"--batch.size {max(1, round(size / at_once)) * at_once}")
        options.append("--lr_rule linear (one forward pass a step, learning rate scaled)")
        raise ZooError(
            f"batch.size {size} is no multiple of {counted(devices, 'device')} x "
            f"{counted(per_device, 'image')} = {at_once}; choose one of: " + ", ".join(options)
        )
    return BatchPlan(size, per_device, devices, size // at_once)


def check_devices(devices: int | str) -> int | None:
    """Return the number of devices asked for, None for ``"auto"``.

    Raises:
        ZooError: If it is neither a number nor ``"auto"``.
    """
    if devices in ("auto", "-1", -1):
        return None
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        raise ZooError(f"--devices is {devices!r}; expected auto or a whole number of at least 1")
    return devices


def counted(n: int, noun: str, plural: str = "s") -> str:
    """Return a number with its noun: ``1 device``, ``8 devices``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{plural}"
