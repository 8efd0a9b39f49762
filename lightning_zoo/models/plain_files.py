"""Files of tensors and plain data, read without running anything and without believing their sizes.

``torch.load(weights_only=True)`` calls a list of functions that it holds for harmless. Two things
are left to us: a file may call the rarer of them in ways that take all memory, and it may be small
and claim to be large. What :func:`read` returns holds plain data and tensors that the file really
brought.
"""

from __future__ import annotations

import io
import mmap as memory
import pickletools  # takes a pickle apart, and never loads one
import re
import stat
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lightning_zoo.errors import ZooError

# What checkpoints of torch and Lightning call. Types and storages beside them are only named.
CALLED = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch.serialization _get_layout",
}
NAMED = re.compile(
    r"torch(\.cuda|\.storage)? \w+Storage"
    r"|torch (b?float\d\w*|u?int\d+|q?u?int\d+|complex\d+|bool|half|double|long|short|uint8|int8"
    r"|per_(tensor|channel)_\w+)"
)
LEGACY_PICKLES = 5  # magic number, version, machine, content, names of the storages
MOST_HASHED = 100_000  # values within one key; a tuple's hash is computed from all of them
MOST_VALUES = 10_000_000
DEEPEST = 200
# Bytes of a tensor that repeats the file's few values; what is loaded from it has to fit a network.
MOST_REPEATED = 1 << 30

PLAIN = (str, int, float, bool, bytes, type(None), complex, torch.dtype, torch.device, torch.layout)


def read(path: Path, *, remedy: str = "replace it", mmap: bool = False) -> Any:
    """Return what a file of ``torch.save`` holds, on the CPU.

    Args:
        path: The file.
        remedy: What helps if it is damaged, for the error.
        mmap: Leave the tensors in the file until they are used, where its format allows that.

    Raises:
        ZooError: If the file is missing, damaged or holds anything beside tensors and plain data.
    """
    size = _size(path)
    if size == 0:
        raise ZooError(f"{path} is damaged (it is empty); {remedy}")
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"  # as torch tells them apart
            file.seek(0)
            if zipped:
                _check_archive(file, path, size)
            else:
                with memory.mmap(file.fileno(), 0, access=memory.ACCESS_READ) as mapped:
                    for _ in range(LEGACY_PICKLES):
                        _check_pickle(mapped, path)
        with warnings.catch_warnings():
            # PyTorch of its own reader of quantized tensors: github.com/pytorch/ao/issues/2259
            warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
            # of pickles that are not its own
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except ZooError:
        raise
    except MemoryError:
        raise ZooError(f"{path} does not fit into memory") from None
    except Exception as error:  # a dozen kinds; torch's texts tell how to run the file's code
        raise ZooError(f"{path} is damaged or no file of weights; {remedy}") from error
    _check_content(content, path, size)
    return content


def _size(path: Path) -> int:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ZooError(f"{path} is a folder; expected a file of weights")
        if not stat.S_ISREG(found.st_mode):
            raise ZooError(f"{path} is no regular file; expected a file of weights")
        with path.open("rb"):
            return found.st_size
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}") from None


# ---------------------------------------------------------------------------------------------
# Before it is loaded


def _check_archive(file: BinaryIO, path: Path, size: int) -> None:
    """Check the pickle of a zip file of ``torch.save``.

    Raises:
        ZooError: If it is packed (torch never packs), has two pickles or one that is refused.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise ZooError(
                f"{path} unpacks to more than it is; files of torch.save are not packed: unpack it "
                "and save what it holds anew"
            )
        names = [entry.filename.lower() for entry in entries]
        if len(set(names)) < len(names):
            raise ZooError(f"{path} has two entries of one name; save what it holds anew")
    # torch's own reader: with another, a file could show one pickle here and another one there
    reader = torch._C.PyTorchFileReader(str(path))
    if "constants.pkl" in reader.get_all_records():
        raise ZooError(
            f"{path} is a TorchScript program, which holds code; save model.state_dict() alone"
        )
    _check_pickle(io.BytesIO(reader.get_record("data.pkl")), path)


def _check_pickle(file: Any, path: Path) -> None:
    """Walk through one pickle without loading it.

    Raises:
        ZooError: If it calls anything that checkpoints do not, or hides a key that never ends.
    """
    stack: list[int] = []  # of each value, how many values its hash is computed from
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            called = str(argument) if argument is not None else name
            if name != "GLOBAL" or not (called in CALLED or NAMED.fullmatch(called)):
                raise ZooError(
                    f"{path} holds Python objects beside tensors, which are never loaded (they can "
                    f"run code: {'.'.join(called.split())}); save model.state_dict() alone"
                )
            stack.append(1)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE", "APPENDS", "SETITEMS", "ADDITEMS", "LIST", "DICT", "FROZENSET"):
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            if name in ("TUPLE", "FROZENSET", "LIST", "DICT"):
                stack.append(1 + sum(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            items = [stack.pop() for _ in range(n)]
            stack.append(1 + sum(items))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack[-1] = arguments
        elif name in ("APPEND", "BUILD", "POP"):
            stack.pop()
        elif name == "SETITEM":
            del stack[-2:]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name == "BINPERSID":
            stack[-1] = 1
        elif name == "POP_MARK":
            del stack[marks.pop() :]
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "STOP", "FRAME"):
            stack.append(1)  # a number, a text, an empty list
        if stack and stack[-1] > MOST_HASHED:
            raise ZooError(f"{path} holds a value of more than {MOST_HASHED} parts; replace it")


# ---------------------------------------------------------------------------------------------
# After it was loaded


def _check_content(content: Any, path: Path, size: int) -> None:
    """Refuse what only claims to be there.

    Raises:
        ZooError: If there is anything but tensors and plain data, a tensor has more values than the
            file, or lists within lists have no end.
    """
    weights: dict[int, int] = {}  # values within each container, shared ones counted every time
    open_: set[int] = set()
    stack: list[tuple[Any, str, bool]] = [(content, "", False)]
    while stack:
        value, name, done = stack.pop()
        key = id(value)
        if isinstance(value, Tensor):
            _check_tensor(value, name, path, size)
        elif isinstance(value, (torch.UntypedStorage, torch.TypedStorage)):
            raise ZooError(f"{path} holds memory without a shape as {name or 'its content'}")
        elif isinstance(value, (dict, list, tuple, set)):
            if set(vars(value) if isinstance(value, OrderedDict) else ()) - {"_metadata"}:
                raise ZooError(f"{path}: {name or 'its content'} is no plain mapping")
            children = list(_children(value))
            if done:
                open_.discard(key)
                weights[key] = 1 + sum(weights.get(id(child), 1) for child, _ in children)
                if weights[key] > MOST_VALUES:
                    raise ZooError(f"{path} holds more than {MOST_VALUES} values; replace it")
            elif key in open_ or len(open_) > DEEPEST:
                raise ZooError(f"{path} holds lists within lists without end; replace it")
            elif key not in weights:
                open_.add(key)
                stack.append((value, name, True))
                stack += [(c, f"{name}.{n}".lstrip("."), False) for c, n in children]
        elif not isinstance(value, PLAIN):
            raise ZooError(
                f"{path} holds {type(value).__name__} as {name or 'its content'}; expected tensors "
                "and plain data"
            )


def _children(value: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, "a key"
            yield item, str(key)[:80]
        if hasattr(value, "_metadata"):  # versions of modules
            yield value._metadata, "_metadata"
    else:
        for i, item in enumerate(value):
            yield item, str(i)


def _check_tensor(value: Tensor, name: str, path: Path, size: int) -> None:
    # a file can give its tensors attributes that stand in the place of their methods
    if type(value) not in (Tensor, torch.nn.Parameter) or vars(value):
        raise ZooError(f"{path}: {name} is no plain tensor")
    if value.layout != torch.strided or value.device.type != "cpu":
        raise ZooError(f"{path}: {name} has no values in the file")
    needed = value.numel() * value.element_size()
    there = value.untyped_storage().nbytes()
    if needed > max(there, MOST_REPEATED) or there > size:
        raise ZooError(
            f"{path}: {name} is {tuple(value.shape)}, {needed} bytes, and the file has "
            f"{min(there, size)} of it; save model.state_dict() anew"
        )


# ---------------------------------------------------------------------------------------------
# Checkpoints of ours


def check_checkpoint(content: Any, path: Path) -> dict[str, Any]:
    """Return a Lightning checkpoint after a look at the kinds of what every reader takes from it.

    Raises:
        ZooError: If something has another kind; the text names it.
    """
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ZooError(f"{path} is no checkpoint of a run: it has no 'state_dict'")
    for key, (kind, fits) in _KINDS.items():
        if key in content and not fits(content[key]):
            raise ZooError(f"{path} is no checkpoint of a run: its {key!r} is not {kind}")
    ours = content.get("lightning_zoo")
    if ours is not None:
        if not isinstance(ours, dict) or not isinstance(ours.get("recipe"), dict):
            raise ZooError(f"{path} is no checkpoint of a run: the recipe in it is missing")
        if not _is_texts(ours.get("class_names", [])):
            raise ZooError(f"{path} is no checkpoint of a run: its class names are not texts")
    return content


def _is_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _is_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "state_dict": ("tensors by name", _is_tensors),
    "epoch": ("a count", _is_count),
    "global_step": ("a count", _is_count),
    "optimizer_states": ("a list of mappings", _is_mappings),
    "lr_schedulers": ("a list of mappings", _is_mappings),
    "callbacks": ("a mapping", _is_mapping),
    "loops": ("a mapping", _is_mapping),
}
