"""Checkpoints and programs with code in them, or that claim what they do not hold.

Every file is given to every verb that takes one: nothing runs, nothing is written elsewhere, and
the answer is one sentence that names the file, within seconds.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import Fitted

from lightning_zoo import programs
from lightning_zoo.cli import main
from lightning_zoo.errors import ZooError
from lightning_zoo.models import hub, plain_files

Captured = pytest.CaptureFixture[str]
MARK = "LIGHTNING_ZOO_TEST_MARK"  # names the file that code in a checkpoint would make
SECONDS = 5


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def touch() -> str:
    return f"touch {os.environ[MARK]}"


def code() -> str:
    return f"open({os.environ[MARK]!r}, 'w').close()"


# Ways to call something while a pickle is read.
GADGETS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Call(os.system, touch()),
    "eval": lambda: Call(eval, code()),
    "exec": lambda: Call(exec, code()),
    "Popen": lambda: Call(subprocess.Popen, ["touch", os.environ[MARK]]),
    "open": lambda: Call(open, os.environ[MARK], "w"),
    "partial": lambda: Call(functools.partial, os.system, touch()),
    "partial of partial": lambda: Call(
        functools.reduce, functools.partial, [os.system, touch()]
    ),
    "import_module": lambda: Call(__import__, "antigravity"),
    "getattr": lambda: Call(getattr, Call(__import__, "os"), "system"),
    "torch.load": lambda: Call(torch.load, os.environ[MARK], None, None, weights_only_off()),
    "torch.hub": lambda: Call(torch.hub.load_state_dict_from_url, "file:///etc/passwd"),
    "bytearray": lambda: Call(bytearray, 1 << 40),
    "Tensor": lambda: Call(torch.Tensor, 1 << 18, 1 << 18),
    "a copy of a huge tensor": lambda: Call(
        torch._utils._rebuild_device_tensor_from_cpu_tensor,
        torch.zeros(1).expand(1 << 36), torch.float64, "cpu", False,
    ),
    "_rebuild_from_type_v2": lambda: Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch(),), {}
    ),
    "a class": lambda: Path("x"),
    "a module's class": lambda: torch.nn.Linear(1, 1),
}  # fmt: skip


def weights_only_off() -> Any:
    return Call(eval, "False")


def doubling_key() -> bytes:
    """Return a pickle of a dictionary whose one key has 2 ** 60 parts."""
    twice = b"".join(b"h%c" % n + b"h%c" % n + b"\x86q%c" % (n + 1) for n in range(60))
    return b"\x80\x02K\x01\x85q\x00" + twice + b"}h<K\x01s."


def in_archive(pickled: bytes, **entries: bytes) -> bytes:
    """Return a file of ``torch.save`` whose pickle is another."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", data)
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def legacy(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def strange_tensor(kind: str) -> Any:
    tensor = torch.zeros(4)
    if kind == "expanded":
        return tensor[:1].expand(1 << 40)
    if kind == "meta":
        return torch.empty(3, device="meta")
    if kind == "sparse":
        return torch.eye(3).to_sparse()
    tensor.numel = 3  # type: ignore[method-assign,assignment]
    return tensor


def huge_storage() -> bytes:
    """Return a file whose pickle says of 16 bytes that they are a tensor of a terabyte."""
    pickled = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"state_dict": {"w": torch.zeros(4)}}))) as archive:
        for info in archive.infolist():
            if info.filename.endswith("data.pkl"):
                pickled.write(archive.read(info))
    # the number of values, and the size that goes with it
    size = b"\x8a\x05" + struct.pack("<Q", 1 << 38)[:5]
    data = pickled.getvalue().replace(b"cpuq\x08K\x04", b"cpuq\x08" + size)
    data = data.replace(b"QK\x00K\x04\x85", b"QK\x00" + size + b"\x85")
    assert len(data) == len(pickled.getvalue()) + 10
    return in_archive(data, **{"archive/data/0": bytes(16)})


def endless() -> Any:
    endless: list[Any] = []
    endless.append(endless)
    return {"state_dict": {"w": torch.zeros(1)}, "lightning_zoo": {"recipe": {"a": endless}}}


def doubling() -> Any:
    value: Any = [0]
    for _ in range(60):
        value = [value, value]
    return {"state_dict": {"w": torch.zeros(1)}, "lightning_zoo": {"recipe": {"a": value}}}


def shadowed() -> Any:
    class Shadowed:
        def __reduce__(self) -> Any:
            items = iter([("w", torch.zeros(1))])
            return OrderedDict, (), {"items": "not a method"}, None, items

    return {"state_dict": Shadowed()}


# What a file may hold, none of it a checkpoint.
FILES: dict[str, Callable[[], bytes]] = {
    **{f"{name} in a zip": lambda g=g: saved({"state_dict": g()}) for name, g in GADGETS.items()},
    **{f"{name} in an old file": lambda g=g: legacy({"w": g()})
       for name, g in GADGETS.items() if "tensor" not in name},
    **{f"{name} in a bare pickle": lambda g=g: pickle.dumps(g(), 2)
       for name, g in GADGETS.items() if "tensor" not in name},
    "a protocol 4 pickle": lambda: in_archive(pickle.dumps(Call(os.system, touch()), 4)),
    "a key without end": lambda: in_archive(doubling_key()),
    "a key without end in an old file": doubling_key,
    **{f"a tensor that is {k}": lambda k=k: saved({"state_dict": {"w": strange_tensor(k)}})
       for k in ("expanded", "meta", "sparse", "shadowed")},
    "a storage of a terabyte": huge_storage,
    "lists within lists without end": lambda: saved(endless()),
    "lists that double": lambda: saved(doubling()),
    "a mapping with a method of its own": lambda: saved(shadowed()),
    "nothing": lambda: b"",
    "one byte": lambda: b"\x80",
    "zeros": lambda: bytes(100_000),
    "half a zip": lambda: saved({"state_dict": {"w": torch.zeros(1000)}})[:2000],
    "a zip without its end": lambda: saved({"state_dict": {"w": torch.zeros(1000)}})[:-30],
    "an empty zip": lambda: b"PK\x05\x06" + bytes(18),
    "a text": lambda: b"<html>not found</html>",
    "a zip of texts": lambda: in_archive(b"hello"),
    "names that lead out": lambda: in_archive(
        b"\x80\x02}.", **{"../../evil": b"x", "/tmp/evil": b"x", "archive/../../evil": b"x"}
    ),
    "two pickles of one name": lambda: in_archive(b"\x80\x02}.", **{"archive/DATA.PKL": b"."}),
    "zeros packed to nothing": lambda: packed(1 << 28),
    "a TorchScript program": lambda: scripted(),
    "a list": lambda: saved([torch.zeros(1)]),
    "a number": lambda: saved(3),
}  # fmt: skip


def packed(size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(size))
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), file)
    return file.getvalue()


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a file that must not be there afterwards; nor may anything else have been started."""
    path = tmp_path / "elsewhere" / "mark"
    path.parent.mkdir()
    monkeypatch.setenv(MARK, str(path))
    monkeypatch.chdir(path.parent)
    yield path
    assert list(path.parent.iterdir()) == []


def test_each_gadget_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the files loaded, the code in them would run; else the tests below show nothing."""
    for name in ("os.system", "eval", "exec", "Popen", "open"):
        path = tmp_path / name
        monkeypatch.setenv(MARK, str(path))
        made = pickle.loads(pickle.dumps(GADGETS[name]()))
        getattr(made, "wait", getattr(made, "close", lambda: None))()
        assert path.exists(), name


@pytest.mark.parametrize("name", FILES)
def test_reading(name: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "hostile.ckpt"
    path.write_bytes(FILES[name]())
    start = time.process_time()
    for mmap in (False, True):
        with pytest.raises(ZooError) as caught:
            plain_files.check_checkpoint(plain_files.read(path, mmap=mmap), path)
        text = str(caught.value)
        assert text.startswith(f"{path} ") or text.startswith(f"{path}: ")
        assert len(text.splitlines()) == 1
        assert len(text) < 400
        for word in ("mmap", "weights_only", "add_safe_globals", "torch.load"):
            assert word not in text
    with pytest.raises(ZooError, match=r"hostile\.ckpt"):
        hub.read_state_dict(path)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "device", "unreadable"])
def test_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # to open one waits for who writes
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "unreadable":
        path.write_bytes(b"x")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("root reads everything")
    with pytest.raises(ZooError, match=f"^{path} (is a folder|is no regular|cannot be read)"):
        plain_files.read(path)


KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "state_dict": lambda c: c.update(state_dict={"w": 3}),
    "state_dict of a list": lambda c: c.update(state_dict=[torch.zeros(1)]),
    "keys that are no texts": lambda c: c.update(state_dict={3: torch.zeros(1)}),
    "epoch": lambda c: c.update(epoch="many"),
    "global_step": lambda c: c.update(global_step=-1),
    "global_step without end": lambda c: c.update(global_step=1 << 100),
    "optimizer_states": lambda c: c.update(optimizer_states=3),
    "lr_schedulers": lambda c: c.update(lr_schedulers={"a": 1}),
    "callbacks": lambda c: c.update(callbacks=[1]),
    "loops": lambda c: c.update(loops="x"),
    "lightning_zoo": lambda c: c.update(lightning_zoo=3),
    "no recipe": lambda c: c["lightning_zoo"].pop("recipe"),
    "recipe of a text": lambda c: c["lightning_zoo"].update(recipe="resnet18"),
    "class_names": lambda c: c["lightning_zoo"].update(class_names=[1, 2]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_another_kind(kind: str, fitted: Fitted, tmp_path: Path) -> None:
    content = plain_files.read(fitted.run / "checkpoints" / "last.ckpt")
    assert plain_files.check_checkpoint(content, tmp_path) is content
    KINDS[kind](content)
    with pytest.raises(ZooError, match="is no checkpoint of a run: "):
        plain_files.check_checkpoint(content, tmp_path / "x.ckpt")


# ---------------------------------------------------------------------------------------------
# Every verb that takes a checkpoint


def hostile_recipe(config: dict[str, Any], change: str) -> None:
    if change == "task":
        config["model"]["class_path"] = "os.system"
        config["model"]["init_args"] = {"command": touch()}
    elif change == "optimizer":
        config["model"]["init_args"]["optimizer"] = {
            "class_path": "subprocess.Popen", "init_args": {"args": ["touch", os.environ[MARK]]}
        }  # fmt: skip
    elif change == "data":
        config["data"] = {
            "class_path": "torch.utils.benchmark.Timer", "init_args": {"stmt": "1", "setup": code()}
        }  # fmt: skip
    elif change == "transform":
        config["data"]["init_args"]["albumentations"] = [
            {"class_path": "builtins.eval", "init_args": {"source": code()}}
        ]
    elif change == "model_args":
        config["model"]["init_args"]["model_args"] = {
            "x": {
                "class_path": "torch.package.PackageImporter",
                "init_args": {"file_or_buffer": "x"},
            }
        }
    elif change == "empty":
        config.clear()
    else:
        config["trainer"]["plugins"] = ["mine"]


# of the six, one for each way by which a class is reached
RECIPES = ["task", "optimizer", "data", "transform", "model_args", "empty", "trainer"]


def verbs(run: Path, checkpoint: Path, data: Path, out: Path) -> dict[str, list[str]]:
    """Return the command lines that read a checkpoint, by verb."""
    photos = str(data / "val")
    small = ["--model.model", "squeezenet1_1", "--data.root", str(data), "--out", str(out)]
    fit = ["fit", "--recipe", "finetune_resnet18", *small, "--data.albumentations", "null"]
    return {
        "fit --resume": [*fit, "--resume", str(checkpoint)],
        "fit --model.weights": [*fit, "--model.weights", str(checkpoint)],
        "validate": ["validate", str(checkpoint)],
        "validate RUN": ["validate", str(run)],
        "validate --weights": [
            "validate", "--recipe", "resnet18", "--weights", str(checkpoint),
            "--data.root", str(data),
        ],
        "test": ["test", str(checkpoint)],
        "predict": ["predict", str(checkpoint), photos, "--out", str(out)],
        "predict RUN": ["predict", str(run), photos, "--out", str(out)],
        "predict --weights": [
            "predict", "resnet18", photos, "--weights", str(checkpoint), "--out", str(out)
        ],
        "export": ["export", str(checkpoint), "--format", "pt2", "--out", str(out / "x.pt2")],
        "export --weights": [
            "export", "resnet18", "--weights", str(checkpoint), "--format", "pt2",
            "--out", str(out / "x.pt2"),
        ],
        "quantize": ["quantize", str(run)],
        "report": ["report", str(run)],
        "finetune --weights": [
            "finetune", "squeezenet1_1", str(data), "--weights", str(checkpoint), "--out", str(out)
        ],
    }  # fmt: skip


VERBS = list(verbs(Path(), Path(), Path(), Path()))


@pytest.fixture
def hostile_run(fitted: Fitted, tmp_path: Path) -> Path:
    """Return a copy of a good run, without its pictures."""
    run = tmp_path / "runs" / "finetune_resnet18" / fitted.run.name
    shutil.copytree(fitted.run, run, ignore=shutil.ignore_patterns("pictures"))
    return run


def snapshot(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("verb", VERBS)
def test_code_in_a_checkpoint(
    verb: str, hostile_run: Path, fitted: Fitted, mark: Path, capsys: Captured
) -> None:
    checkpoint = hostile_run / "checkpoints" / "best.ckpt"
    for name in ("os.system in a zip", "Popen in an old file", "nothing", "half a zip",
                 "a tensor that is expanded", "a key without end"):  # fmt: skip
        for path in (checkpoint, checkpoint.with_name("last.ckpt")):
            path.write_bytes(FILES[name]())
        refused(verb, hostile_run, checkpoint, fitted, capsys)


def refused(verb: str, run: Path, checkpoint: Path, fitted: Fitted, capsys: Captured) -> str:
    """Run a verb; return the sentence with which it refuses."""
    out = run.parents[2] / "out"
    before = snapshot(run)
    start = time.process_time()
    capsys.readouterr()
    status = main(verbs(run, checkpoint, fitted.data, out)[verb])
    answer = capsys.readouterr().err
    assert status == 2, f"{verb}: {answer}"
    assert answer.startswith("error: "), f"{verb}: {answer}"
    assert len(answer.splitlines()) <= 4, answer
    assert time.process_time() - start < SECONDS + 5  # with the imports of a first command
    assert snapshot(run) - before <= {"run.lock"}
    assert snapshot(out) == set()
    return answer


@pytest.mark.parametrize(
    "verb", ["fit --resume", "validate", "validate RUN", "test", "predict", "predict RUN", "export",
             "quantize", "report"],
)  # fmt: skip
def test_code_in_a_checkpoints_recipe(
    verb: str, hostile_run: Path, fitted: Fitted, mark: Path, capsys: Captured
) -> None:
    import yaml

    good = plain_files.read(fitted.run / "checkpoints" / "best.ckpt")
    for change in RECIPES:
        content = copy.deepcopy(good)
        content["hyper_parameters"] = {"_instantiator": "os.system", "class_path": "os.system"}
        content["hparams_type"] = "os.system"
        hostile_recipe(content["lightning_zoo"]["recipe"], change)
        for name in ("best.ckpt", "last.ckpt"):
            torch.save(content, hostile_run / "checkpoints" / name)
        text = yaml.safe_dump(content["lightning_zoo"]["recipe"])
        (hostile_run / "recipe.yaml").write_text(text)
        answer = refused(
            verb, hostile_run, hostile_run / "checkpoints" / "best.ckpt", fitted, capsys
        )
        if change in ("task", "optimizer", "data", "transform", "model_args"):
            assert "is outside what recipes may use" in answer, change
            assert "--trust" in answer


# ---------------------------------------------------------------------------------------------
# Programs


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small network as ``export`` does."""
    from lightning_zoo.export.files import FACTS, write_pt2

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)
            self.register_buffer("steps", torch.arange(2.0))

        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"probs": self.layer(pixels.float() + torch.tensor(0.5)) + self.steps}

    pixels = torch.zeros(2, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=64)
    made = torch.export.export(Small(), (pixels,), dynamic_shapes={"pixels": {0: batch}})
    path = tmp_path_factory.mktemp("programs") / "small.pt2"
    write_pt2(made, path, {"classes": ["a", "b"]})
    assert FACTS == "lightning_zoo"
    return path


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return the file with its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {i.filename.partition("/")[2]: archive.read(i) for i in archive.infolist()}
    change(entries)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def in_json(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def changed(entries: dict[str, bytes]) -> None:
        content = json.loads(entries[name])
        change(content)
        entries[name] = json.dumps(content).encode()

    return changed


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def node(model: Any) -> Any:
    return model["graph_module"]["graph"]["nodes"][0]


def call(target: str, *texts: str) -> Callable[[Any], None]:
    """Return a change that makes the first node another operation on texts."""

    def change(model: Any) -> None:
        one = node(model)
        one["target"] = target
        one["inputs"] = [
            {"name": "path", "arg": {"as_string": text}, "kind": 1}
            for text in (texts or ["hacked"])
        ]

    return change


def pickled(entries: dict[str, bytes]) -> None:
    config = json.loads(entries[WEIGHTS])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    entries[WEIGHTS] = json.dumps(config).encode()
    entries[f"data/weights/{first['path_name']}"] = saved(Call(os.system, touch()))


def opaque(kind: str) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        config = json.loads(entries[CONSTANTS])
        config["config"]["evil"] = {
            "path_name": f"{kind}_0", "is_param": False, "use_pickle": True,
            "tensor_meta": None,
        }  # fmt: skip
        entries[CONSTANTS] = json.dumps(config).encode()
        entries[f"data/constants/{kind}_0"] = pickle.dumps(Call(os.system, touch()))

    return change


def rename(model: Any, new: str) -> None:
    """Give the graph's input another name everywhere."""
    old = "pixels"
    text = json.dumps(model).replace(f'"{old}"', json.dumps(new))
    model.clear()
    model.update(json.loads(text))


def formula(text: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        next(iter(values.values()))["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}

    return change


def huge(meta_key: str, value: Any) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        config = json.loads(entries[WEIGHTS])
        first = next(iter(config["config"].values()))
        first["tensor_meta"][meta_key] = value
        if meta_key == "sizes":
            entries[f"data/weights/{first['path_name']}"] = b""
        entries[WEIGHTS] = json.dumps(config).encode()

    return change


def old_format(entries: dict[str, bytes]) -> None:
    entries.clear()
    entries["version"] = b"8.9"
    entries["serialized_state_dict.pt"] = saved(Call(os.system, touch()))
    entries["serialized_constants.pt"] = saved({})
    entries["serialized_example_inputs.pt"] = saved({})
    entries["serialized_exported_program.json"] = b"{}"


PROGRAMS: dict[str, Callable[[dict[str, bytes]], None]] = {
    "pickled weights": pickled,
    "a pickled constant": opaque("tensor"),
    "a custom object": opaque("custom_obj"),
    "an opaque object": opaque("opaque_obj"),
    "the old format": old_format,
    "a compiled library": lambda e: e.update({"data/aotinductor/model/x.so": b"\x7fELF"}),
    "os.mkdir": in_json(MODEL, call("torch.os.mkdir")),
    "a loaded library": in_json(MODEL, call("torch.ops.load_library", "evil")),
    "a loaded file": in_json(MODEL, call("torch.load")),
    "an operator that calls": in_json(MODEL, call("_operator.methodcaller", "system")),
    "an attribute": in_json(MODEL, call("_operator.attrgetter", "system")),
    "a registered prefix": in_json(MODEL, call("#x:os.system")),
    "from_file": in_json(MODEL, call("torch.ops.aten.from_file.default", "evil")),
    "aten.save": in_json(MODEL, call("torch.ops.aten.save.default", "evil")),
    "a higher-order operation": in_json(MODEL, call("torch.ops.higher_order.cond", "x")),
    "another namespace": in_json(MODEL, call("torch.ops.profiler._record_function_enter.default")),
    "a name with code": in_json(
        MODEL, lambda m: rename(m, f"pixels=__import__('os').system({touch()!r})")
    ),
    "a name with a line": in_json(MODEL, lambda m: rename(m, f"x):\n    {code()}\n    return (")),
    "an attribute's name": in_json(MODEL, lambda m: rename(m, "torch.load")),
    "a formula with a call": in_json(MODEL, formula("__import__('os').system('touch hacked')")),
    "a formula in a text": in_json(MODEL, formula("Integer(\"__import__('os').getpid()\")")),
    "a formula with an attribute": in_json(MODEL, formula("().__class__.__bases__[0]")),
    "a formula without end": in_json(MODEL, formula("Pow(Pow(Pow(9, 64), 64), 64)")),
    "a power of powers": in_json(MODEL, formula("9**9**9**9")),
    "a long formula": in_json(MODEL, formula("(" * 4000 + "1" + ")" * 4000)),
    "a mapping that imports": in_json(
        MODEL,
        lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec=json.dumps([1, {
                "type": "builtins.dict", "children_spec": [],
                "context": json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "y"}),
            }])
        ),
    ),
    "another container": in_json(
        MODEL,
        lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec=json.dumps([1, {
                "type": "collections.defaultdict", "children_spec": [],
                "context": json.dumps({"default_factory_module": "antigravity"}),
            }])
        ),
    ),
    "another verifier": in_json(MODEL, lambda m: m.update(verifiers=["EVIL"])),
    "a file elsewhere": in_json(
        WEIGHTS, lambda w: next(iter(w["config"].values())).update(path_name="../../x")
    ),
    "weights without values": huge("sizes", [{"as_int": 1 << 40}]),
    "weights elsewhere": huge("device", {"type": "cuda", "index": 0}),
    "deep JSON": lambda e: e.update({MODEL: b"[" * 200_000}),
    "no graph": lambda e: e.pop(MODEL) and None,  # type: ignore[func-returns-value]
    "an empty graph": lambda e: e.update({MODEL: b"{}"}),
    "facts that are a list": lambda e: e.update({"extra/lightning_zoo": b"[]"}),
}  # fmt: skip


# What torch cannot read either; all else it would take, and has to be told apart from a network.
DAMAGED = {"the old format", "deep JSON", "no graph", "an empty graph"}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch copies its own tree specs
def test_torch_itself_runs_the_code(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the programs loaded as they are, what is in them would run."""
    path = tmp_path / "hostile.pt2"
    for name in ("pickled weights", "a name with code"):
        mark = tmp_path / name.replace(" ", "_")
        monkeypatch.setenv(MARK, str(mark))
        path.write_bytes(rewritten(program, PROGRAMS[name]))
        with contextlib.suppress(Exception):
            torch.export.load(path)
        assert mark.exists(), name


@pytest.mark.parametrize("name", PROGRAMS)
def test_code_in_a_program(name: str, program: Path, tmp_path: Path, mark: Path) -> None:
    from lightning_zoo import export, int8

    path = tmp_path / "hostile.pt2"
    path.write_bytes(rewritten(program, PROGRAMS[name]))
    start = time.process_time()
    loaders = [export.load, int8.load] if "facts" not in name else [export.load]
    for load in loaders:
        says = "is damaged or no" if name in DAMAGED else "holds more than a network"
        with pytest.raises(ZooError, match=f"^{path} {says}"):
            load(path)
    assert time.process_time() - start < SECONDS


IGNORED: dict[str, Callable[[dict[str, bytes]], None]] = {
    "nothing": lambda e: None,
    # torch would rather take these than the real ones
    "old weights": lambda e: e.update({"data/weights/model.pt": saved(Call(os.system, touch()))}),
    "old constants": lambda e: e.update(
        {"data/constants/model.pt": saved(Call(os.system, touch()))}
    ),
    "inputs": lambda e: e.update({"data/sample_inputs/model.pt": saved(Call(os.system, touch()))}),
    "guards": in_json(MODEL, lambda m: m.update(guards_code=["__import__('os').abort()"])),
    "where a node comes from": in_json(
        MODEL, lambda m: node(m)["metadata"].update(source_fn_stack="a,torch.os.abort")
    ),
    "another model": lambda e: e.update({"models/evil.json": b"{}"}),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_left_aside(name: str, program: Path, tmp_path: Path, mark: Path) -> None:
    from lightning_zoo import export

    path = tmp_path / "same.pt2"
    path.write_bytes(rewritten(program, IGNORED[name]))
    pixels = torch.randint(0, 256, (5, 3), dtype=torch.uint8)
    (run, facts), (other, _) = export.load(program), export.load(path)
    assert facts == {"classes": ["a", "b"]}
    assert torch.equal(run(pixels)["probs"], other(pixels)["probs"])
    assert torch.equal(run(pixels)["probs"], torch.export.load(program).module()(pixels)["probs"])


def test_packed_programs(program: Path, tmp_path: Path) -> None:
    from lightning_zoo import export

    path = tmp_path / "packed.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/models/model.json", b" " * (programs.MOST_TEXT + 1))
    with pytest.raises(ZooError, match="it unpacks to more than a network"):
        export.load(path)
    path.write_bytes(program.read_bytes()[:-100])
    with pytest.raises(ZooError, match=r"is damaged or no"):
        export.load(path)
    path.write_bytes(b"")
    with pytest.raises(ZooError, match=r"is damaged or no ONNX file"):
        export.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s34', positive=True, integer=True)",
        "Mul(Max(Integer(1), Mul(Integer(2), Symbol('u2', integer=True))), Integer(-3))",
        "LessThan(Symbol('u0', integer=True), Integer(14408000370376704))",
        "Pow(Symbol('s0'), Integer(2))",
        "s0*(s1 + 1) // 2",
        "FloorDiv(Symbol('s0', integer=True), Integer(-2))",
        "",
    ],
)
def test_formulas_of_sizes(text: str) -> None:
    if text:
        programs.check_formula(text)
    else:
        with pytest.raises(programs.NotPlainError):
            programs.check_formula(text)


def onnx_model(kind: str, folder: Path) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    operation, domain = "Add", ""
    if kind == "values in another file":
        secret = folder / "secret"
        secret.write_bytes(bytes(8))
        values.ClearField("float_data")
        values.data_location = TensorProto.EXTERNAL
        values.external_data.add(key="location", value="secret")
    elif kind == "another domain":
        domain = "com.microsoft"
    elif kind == "constants of gigabytes":
        values = helper.make_tensor("w", TensorProto.INT64, [1], [1 << 27])
        operation = "ConstantOfShape"
    inputs = ["w"] if operation == "ConstantOfShape" else ["x", "w"]
    graph = helper.make_graph(
        [helper.make_node(operation, inputs, ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [values],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )  # fmt: skip
    if kind != "no facts":
        model.metadata_props.add(key="lightning_zoo", value="{}")
    data: bytes = model.SerializeToString()
    assert isinstance(model, onnx.ModelProto)
    return data


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("values in another file", "the values of 'w' are in another file"),
        ("another domain", "an operation of 'com.microsoft'"),
        ("no facts", "is damaged or no ONNX file"),
        ("constants of gigabytes", ""),
    ],
)
def test_onnx(kind: str, says: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import resource

    from lightning_zoo import export

    path = tmp_path / "hostile.onnx"
    path.write_bytes(onnx_model(kind, tmp_path))
    if says:
        with pytest.raises(ZooError, match=says):
            export.load(path)
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    export.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_the_checks_cost_little(fitted: Fitted) -> None:
    """A checkpoint of ours is read as it was written, and the look at it takes little time."""
    path = fitted.run / "checkpoints" / "last.ckpt"
    start = time.process_time()
    content = plain_files.read(path, mmap=True)
    checked = time.process_time() - start
    start = time.process_time()
    plain = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    loaded = time.process_time() - start
    assert content.keys() == plain.keys()
    assert all(torch.equal(v, plain["state_dict"][k]) for k, v in content["state_dict"].items())
    print(f"{checked * 1e3:.0f} ms with the checks, {loaded * 1e3:.0f} ms without")
    assert checked < loaded + 1
    assert sys.getrecursionlimit() < 10_000
