"""Pickles with objects next to the weights: the weights are read or the objects are named, and no code is run."""

from __future__ import annotations

import argparse
import collections
import enum
import io
import os
import pickle
import sys
import types
import typing
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from importer_fixtures import load as fixture  # noqa: E402
from importer_fixtures import weights  # noqa: E402

from rtseg.core.errors import ModelError  # noqa: E402
from rtseg.nn.importers.load import load  # noqa: E402

STATE = weights(fixture("classic-16-bilinear-odd"))


class Settings:
    class Model: ...

    class Mode(enum.Enum):
        FAST = 1

    class mode_of_old(enum.Enum):  # noqa: N801
        SLOW = 2

    @classmethod
    def from_text(cls, text: str) -> Settings:
        return cls()


class Trainer:
    def log(self) -> None: ...

    def eval(self) -> None: ...

    def __reduce_ex__(self, _: Any) -> Any:
        return Trainer, ()


class Made:
    """Object pickled by a class method, as in several libraries."""

    def __reduce__(self) -> Any:
        return Settings.from_text, ("a",)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Subclasses of dict and list in a library of training programs."""
    module = types.ModuleType("lightning.fabric.data")
    for name, base in (("AttributeDict", dict), ("Items", list)):
        setattr(module, name, type(name, (base,), {"__module__": module.__name__}))
    for name in ("lightning", "lightning.fabric"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in its own folder, where code of a checkpoint would write its marker."""
    monkeypatch.chdir(tmp_path)


def save_file(content: object, form: str = "zip") -> Path:
    torch.save(content, "unet.pth", _use_new_zipfile_serialization=form == "zip")
    return Path("unet.pth")


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_same_as_torch(path: Path, *keys: str) -> None:
    """Check that the weights equal those that torch reads from a trusted file."""
    theirs = torch.load(path, weights_only=False)
    for key in keys:
        theirs = theirs[key]
    ours = load(path).tensors
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], tensor.float()) for name, tensor in theirs.items())


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize(
    "extra",
    [
        collections.deque([1.0, 2.0], maxlen=5),
        collections.defaultdict(list, loss=[1.0]),
        collections.defaultdict(dict),
        collections.OrderedDict(a=1),
        collections.Counter(a=1),
        torch.nn.functional.relu,
        [typing.Any, dict, list, tuple, int, float, str, bool, bytes, object, range, type(None)],
        [range(5), slice(1, 2), {1}, frozenset({1}), b"x", bytearray(b"y"), 1j],
        argparse.Namespace(history=collections.deque([{"loss": 1.0}])),
    ],
    ids=["deque", "defaultdict", "empty", "ordered", "counter", "relu", "types", "values", "namespace"],
)
def test_reads_weights_next_to_objects_of_the_standard_library(extra: object, form: str) -> None:
    check_same_as_torch(save_file({"state_dict": STATE, "extra": extra}, form), "state_dict")


def test_reads_weights_next_to_dict_and_list_subclasses(library: Any) -> None:
    settings = library.AttributeDict(rate=0.1, inner=library.AttributeDict(width=3), widths=library.Items([8, 16]))
    settings.frozen = True  # state in addition to the entries
    check_same_as_torch(save_file({"state_dict": STATE, "settings": settings}), "state_dict")
    check_same_as_torch(save_file({"state_dict": library.AttributeDict(STATE)}), "state_dict")


def test_names_list_subclass_with_state(library: Any) -> None:
    items = library.Items([8, 16])
    items.frozen = True
    message = refused(save_file({"state_dict": STATE, "items": items}))
    assert "lightning.fabric.data.Items" in message
    assert "not a torch checkpoint" not in message


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (Settings.Model(), "Settings.Model"),
        (Settings.Model, "Settings.Model"),
        (Settings.Mode.FAST, "Settings.Mode"),
        (Settings.mode_of_old.SLOW, "Settings.mode_of_old"),
        (Trainer().log, "Trainer.log"),
        (Trainer().eval, "Trainer.eval"),
        (Made(), "Settings.from_text"),
        ([Trainer(), Settings.Model(), Settings.Model()], "Settings.Model"),
    ],
    ids=["object", "class", "enum", "lower-case", "method", "eval", "class-method", "several"],
)
def test_names_nested_classes_and_bound_methods(extra: object, name: str, form: str) -> None:
    message = refused(save_file({"state_dict": STATE, "extra": extra}, form))
    assert f"{__name__}.{name}" in message
    assert "next to the weights" in message
    assert "save only the weights, `model.state_dict()`" in message
    assert "trust" not in message
    assert "getattr" not in message


@pytest.mark.parametrize("extra", [torch.nn.ReLU(), torch.nn.CrossEntropyLoss(weight=torch.ones(3))], ids=str)
def test_module_next_to_weights_is_not_reported_as_whole_network(extra: object) -> None:
    message = refused(save_file({"state_dict": STATE, "log": Trainer(), "extra": extra}))
    assert f"objects next to the weights ({__name__}.Trainer, torch.nn.modules." in message
    assert "whole pickled module" not in message


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize(
    "wrap",
    [lambda net: net, lambda net: {"log": Trainer(), "loss": torch.nn.L1Loss(), "model": net}],
    ids=["only the network", "with other objects"],
)
def test_refuses_whole_pickled_network(wrap: Any, form: str) -> None:
    net = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3) for _ in range(4)))
    message = refused(save_file(wrap(net), form))
    assert "whole pickled module (torch.nn.modules.container.Sequential)" in message
    assert "save `model.state_dict()`" in message


@pytest.mark.parametrize(
    ("extra", "names"),
    [([zip, map, Trainer()], "builtins.zip, builtins.map"), (torch.load, "torch.serialization.load")],
)
def test_names_functions_as_in_python_3(extra: object, names: str) -> None:
    message = refused(save_file({"state_dict": STATE, "extra": extra}))
    assert f"next to the weights ({names}" in message


class Calls:
    """Object pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __call__(self) -> None:
        """Exist, because pickle accepts only callables as a function."""

    def __reduce__(self) -> Any:
        return self.call


MARKER = "was-run"
TOUCH = f"touch {MARKER}"
WRITE = f"open({MARKER!r}, 'w')"


def code_pickle(name: bytes, kind: str, text: str = TOUCH) -> bytes:
    """Return a pickle that calls a function by a rarely used instruction."""
    string = b"X" + len(text).to_bytes(4, "little") + text.encode()
    calls = {
        "REDUCE": b"c" + name + string + b"\x85R",
        "OBJ": b"(c" + name + string + b"o",
        "INST": b"(" + string + b"i" + name,
        "NEWOBJ": b"c" + name + string + b"\x85\x81",
        "BUILD": b"c" + name + string + b"\x85R}b",
    }
    return b"\x80\x02" + calls[kind] + b"."


def as_checkpoint(content: bytes) -> Path:
    """Write a torch file with the given pickle."""
    whole = io.BytesIO()
    torch.save({"state_dict": {}}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile("unet.pth", "w") as new:
        for entry in old.infolist():
            new.writestr(entry, content if entry.filename.endswith("data.pkl") else old.read(entry))
    return Path("unet.pth")


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(os.system, TOUCH), "posix.system"),
        (Calls(eval, WRITE), "builtins.eval"),
        (Calls(exec, WRITE), "builtins.exec"),
        (Calls(Calls(getattr, Calls(__import__, "os"), "system"), TOUCH), "builtins.__import__"),
        (collections.deque([Calls(os.system, TOUCH)]), "posix.system"),
        (collections.defaultdict(list, a=[Calls(eval, WRITE)]), "builtins.eval"),
    ],
    ids=["system", "eval", "exec", "import", "deque", "defaultdict"],
)
def test_refuses_code_without_running_it(call: object, name: str, form: str) -> None:
    if form == "old":  # plain pickles too
        for protocol in (0, 2, 4):
            Path("unet.pkl").write_bytes(pickle.dumps({"model": call}, protocol=protocol))
            assert f"would run `{name}`" in refused(Path("unet.pkl"))
    path = save_file({"state_dict": STATE, "extra": call}, form)
    message = refused(path)
    assert not Path(MARKER).exists()
    assert f"would run `{name}`" in message
    assert "Do not trust" in message
    torch.load(path, weights_only=False)  # the pickle works: it runs the code
    assert Path(MARKER).exists()


CHAINS = {
    "a module's module": b"cbuiltins\ngetattr\nctorch.serialization\nos\nX\x06\0\0\0system\x86R",
    "a function's globals": b"cbuiltins\ngetattr\ncargparse\nNamespace\nX\x0b\0\0\0__globals__\x86R",
    "of Python 2": b"c__builtin__\ngetattr\ncpathlib\nos\nX\x06\0\0\0system\x86R",
    "of an unknown object": b"cbuiltins\ngetattr\nX\x01\0\0\0aX\x06\0\0\0format\x86R",
    "a dotted name": b"\x8c\x07pathlib\x8c\x09os.system\x93",
    "a module by another name": b"cbuiltins\ngetattr\ncshlib\nplatform\nX\x06\0\0\0system\x86R",
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_refuses_getattr_that_leads_to_code(chain: bytes) -> None:
    string = b"X" + len(TOUCH).to_bytes(4, "little") + TOUCH.encode()
    path = as_checkpoint(b"\x80\x04" + chain + string + b"\x85R.")
    assert "Do not trust" in refused(path)
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("kind", ["REDUCE", "OBJ", "INST", "NEWOBJ", "BUILD"])
@pytest.mark.parametrize("name", [b"posix\nsystem\n", b"os\nsystem\n", b"builtins\neval\n", b"__builtin__\nexec\n"])
def test_refuses_code_in_every_call_instruction(kind: str, name: bytes) -> None:
    path = as_checkpoint(code_pickle(name, kind))
    message = refused(path)
    assert "would run `" in message
    assert "__builtin__" not in message
    assert not Path(MARKER).exists()


def test_stand_in_never_calls_the_real_function(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(torch.nn.functional, "relu", called.append)
    monkeypatch.setattr(typing, "cast", called.append)
    call = b"}X\x01\0\0\0a" + b"c%s\nK\x01\x85Rs"
    for name in (b"torch.nn.functional\nrelu", b"typing\ncast"):
        path = as_checkpoint(b"\x80\x02" + call % name + b".")
        assert "contains no weights" in refused(path)  # it was read
    assert not called


def test_refuses_deep_or_damaged_pickle() -> None:
    deep = b"\x80\x02cargparse\nNamespace\n" + b")\x81" * 20000 + b"."
    assert refused(as_checkpoint(deep))
    for damaged in (b"R.", b"(o.", b"h\x07.", b"u.", b"cbuiltins\ngetattr\n.", b"."):
        assert refused(as_checkpoint(b"\x80\x02" + damaged))
