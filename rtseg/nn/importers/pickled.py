"""Static analysis of a pickle: the objects it would create, from its instructions, none of which is executed."""

from __future__ import annotations

import mmap
import pickletools
import re
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

HARMLESS = re.compile(
    r"fastcore\.(foundation|basics)\.\w+"
    r"|numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|ndarray|dtype|dtypes\.\w+)"
    r"|pathlib\.(\w+\.)?\w*Path|argparse\.Namespace|types\.(SimpleNamespace|GenericAlias)|datetime\.\w+"
    r"|omegaconf\.[\w.]+|(pytorch_lightning|lightning|lightning_fabric)\.[\w.]+"
    r"|collections\.(defaultdict|deque|ChainMap|User\w+)|typing\.\w+|_?operator\.getitem|torch\.nn\.functional\.\w+"
    r"|builtins\.(dict|list|set|frozenset|tuple|int|float|str|bytes|bytearray|bool|complex|range|slice|object|type)"
)
"""Harmless objects that training programs save with the weights (optimizer settings, paths, options). Replaced by inert
objects."""

TORCH_OBJECTS = re.compile(
    r"torch\.(\w+|(_utils|_tensor|storage|serialization|nn\.parameter|cuda)\.\w+)|_codecs\.encode"
    r"|collections\.(OrderedDict|Counter)"
)
"""Objects that torch's own reader can create."""

MODULES = r"posix|nt|os|sys|subprocess|shutil|socket|importlib|runpy|pty|ctypes|webbrowser"
RUNS_CODE = re.compile(rf"({MODULES})\..*|builtins\.(eval|exec|execfile|compile|open|__import__)")
"""Functions that a pickle names only to run code while it is read."""

REACHES_CODE = re.compile(
    rf"{MODULES}|builtins|__(globals|builtins|subclasses|dict|bases?|mro|getattribute|import|code|self|loader|spec)__"
)
"""Attributes that are never pickled: they lead from a harmless object to functions that run code."""

STATE_KEYS = (
    "state_dict", "model_state_dict", "model_state", "state_dict_ema", "model", "net", "network", "network_weights", "module",
    "weights", "params",
)  # fmt: skip
"""Keys under which training programs store the weights in a checkpoint, in the order of search."""

DAMAGE = (OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors of Python's readers of zip files and pickles for damaged files. UnicodeError is a ValueError, and
NotImplementedError (unknown compression) is a RuntimeError."""

GETATTR = ("builtins", "getattr")

_MIN_TENSORS = 4
"""Minimum number of tensors in a dict of weights."""

_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ")
_ADDS = ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "BUILD")
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


class Inert:
    """Stand-in for an object that is not needed. Ignores its arguments and state."""

    def __new__(cls, *_: object) -> Inert:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class InertDict:
    """Stand-in for a subclass of dict. torch adds entries only to the dict classes that it supports."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """Return an OrderedDict, to which torch adds the entries."""
        return OrderedDict()


class InertList:
    """Stand-in for a subclass of list. torch adds items only to a plain list."""

    def __new__(cls, *_: object) -> list[Any]:  # type: ignore[misc]
        """Return a plain list, to which torch adds the items."""
        return []


@dataclass(eq=False)
class Part:
    """Object that one instruction would create."""

    kind: str
    """Name of the instruction in Python's pickletools."""

    value: Any
    """Argument of the instruction."""

    operands: list[Part]
    """Operands from the stack; for a call: the callable, then the arguments."""

    added: dict[str, list[Part]] = field(default_factory=dict)
    """Objects that later instructions add to this one, by instruction."""

    named: tuple[str, str] | None = None
    """Module and name, in Python 3, of the class or function that the instruction names."""

    attribute: str | None = None
    """Name of the attribute if this is a `getattr` of a known object: a nested class or a bound method."""

    full_name: str = ""
    """Name of the class or function that this is, or that creates it; empty for plain data."""

    def __post_init__(self) -> None:
        """Determine the names. Those of the operands are already known."""
        if self.kind in ("GLOBAL", "INST"):
            module, _, name = str(self.value).partition(" ")
        elif self.kind == "STACK_GLOBAL":
            module, name = str(self.operands[0].value), str(self.operands[1].value)
        elif self.kind in _CALLS:
            self.full_name = self.operands[0].full_name
            if self.kind == "REDUCE" and self.operands[0].named == GETATTR and len(self.operands[1].operands) == 2:
                target, attribute = self.operands[1].operands
                if target.full_name and isinstance(attribute.value, str):
                    self.attribute = attribute.value
                    self.full_name = f"{target.full_name}.{self.attribute}"
            return
        else:
            operands = self.operands[0].operands if self.kind == "BINPERSID" else []
            if operands and operands[0].value == "module":  # torch's old format
                self.full_name = operands[1].full_name
            return
        self.named = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.full_name = ".".join(self.named)

    @property
    def entries(self) -> list[tuple[Any, Part]]:
        """Keys and values, if this is a plain dict."""
        if self.kind != "EMPTY_DICT" and self.full_name != "collections.OrderedDict":
            return []
        flat = [*self.added.get("SETITEM", ()), *self.added.get("SETITEMS", ())]
        return [(key.value, value) for key, value in zip(flat[::2], flat[1::2], strict=False)]


@dataclass
class Pickled:
    """Instructions of a checkpoint's pickle, up to the first damage."""

    parts: list[Part] = field(default_factory=list)
    root: Part | None = None
    """The saved object; None if the pickle is damaged."""

    @property
    def names(self) -> list[str]:
        """Names of the classes and functions in the pickle, in order; the first is that of the outermost object."""
        names = (p.full_name for p in self.parts if p.named or p.attribute is not None)
        return list(dict.fromkeys(name for name in names if name != ".".join(GETATTR)))

    @property
    def unknown(self) -> list[str]:
        """Names that have no stand-in, each in its longest form."""
        stand_ins = self.stand_ins()
        names = [name for name in self.names if name not in stand_ins and not TORCH_OBJECTS.fullmatch(name)]
        return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]

    def module(self) -> str:
        """Return the class of the outermost pickled torch module, preferably one with submodules; empty if there is none."""
        modules = [
            (not submodules.entries, part.full_name)
            for part in self.parts
            for state in part.added.get("BUILD", ())
            for key, submodules in state.entries
            if key == "_modules" and part.full_name
        ]
        return min(modules, key=lambda module: module[0], default=(True, ""))[1]

    def stand_ins(self) -> dict[str, Any]:
        """Return the stand-in class of each harmless name."""
        kinds: dict[str, Any] = {}
        for name in filter(HARMLESS.fullmatch, self.names):
            kinds[name] = type(name.rpartition(".")[2], (Inert,), {})
        stateful = set()
        for part in self.parts:
            if part.kind in _CALLS and part.full_name in kinds and part.added:
                state = [step.kind for step in part.added.get("BUILD", ())]
                if part.added.keys() & {"SETITEM", "SETITEMS"}:
                    kinds[part.full_name] = InertDict
                    stateful.update([part.full_name] if state not in ([], ["EMPTY_DICT"]) else [])
                elif part.added.keys() & {"APPEND", "APPENDS"}:
                    kinds[part.full_name] = InertList
                    stateful.update([part.full_name] if state else [])
        # A plain list or dict can't store such state: torch would fail.
        return {name: kind for name, kind in kinds.items() if name not in stateful}

    def find_code(self) -> str:
        """Return the name of the first function that would run code while the pickle is read; empty if there is none.

        Python itself writes `getattr` for nested classes and bound methods. Only other uses of it are harmful.
        """
        called = {id(part.operands[0]) for part in self.parts if part.kind in _CALLS}
        passed_on = {
            id(x) for p in self.parts for x in (*(p.operands if p.attribute is None else ()), *chain(*p.added.values()))
        }
        for part in self.parts:
            if part.named == GETATTR:
                if id(part) in passed_on or part is self.root:
                    return "builtins.getattr"
            elif part.named:
                if RUNS_CODE.fullmatch(part.full_name) or any(map(REACHES_CODE.fullmatch, part.named[1].split("."))):
                    return part.full_name
            elif part.attribute is not None:
                if any(map(REACHES_CODE.fullmatch, part.attribute.split("."))):
                    return part.full_name
                # A class or a method of a class creates an object of the checkpoint. An attribute of a module can be any function.
                owner_and_name = part.full_name.split(".")[-2:]
                if id(part) in called and not any(name.lstrip("_")[:1].isupper() for name in owner_and_name):
                    return part.full_name
        return ""

    def has_weights(self) -> bool:
        """Return True if the pickle contains plain weights, at the top or under a known key."""
        level = [self.root] if self.root else []
        for _ in range(3):
            if any(sum(_is_tensor(value) for _, value in part.entries) >= _MIN_TENSORS for part in level):
                return True
            level = [value for part in level for key, value in part.entries if key in STATE_KEYS]
        return False


def read_instructions(path: Path) -> Pickled:
    """Read the instructions of a torch file or a plain pickle."""
    pickled = Pickled()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inner = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                if inner is not None:
                    with archive.open(inner) as file:
                        pickled.root = _root(file, pickled.parts)
        else:
            # Memory-mapped: with a damaged length, `read` of a plain file would allocate that much memory.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for _ in range(4):  # torch's old format: magic number, protocol, machine, then the object
                    pickled.root = _root(content, pickled.parts)
    except DAMAGE:
        pickled.root = None  # `torch.load` reports the same damage
    return pickled


def _root(file: Any, parts: list[Part]) -> Part:
    """Return the object of one pickle, and append all of its parts to `parts`."""
    stack: list[Part] = []
    memo: dict[int, Part] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _PUTS:
            memo[int(argument or 0)] = stack[-1]
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif opcode.name in _GETS:
            stack.append(memo[int(argument or 0)])
        elif opcode.name == "DUP":
            stack.append(stack[-1])
        elif opcode.name == "STOP":
            return stack[-1]
        else:
            operands = list(_pop_operands(opcode, stack))
            if opcode.name in _ADDS:
                operands[0].added.setdefault(opcode.name, []).extend(operands[1:])
                stack.append(operands[0])
            elif opcode.stack_after:
                stack.append(Part(opcode.name, argument, operands))
                parts.append(stack[-1])
    raise ValueError("a pickle without an end")


def _pop_operands(opcode: Any, stack: list[Part]) -> Iterator[Part]:
    """Pop the operands of an instruction from the stack. Yields them from the bottom up, without the mark."""
    since_mark: list[Part] = []
    count = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        count = opcode.stack_before.index(pickletools.markobject)
        while (top := stack.pop()).kind != "MARK":
            since_mark.append(top)
    if count > len(stack):
        raise ValueError("a pickle that pops more than the stack contains")
    yield from stack[len(stack) - count :]
    del stack[len(stack) - count :]
    yield from reversed(since_mark)


def _is_tensor(part: Part) -> bool:
    return part.full_name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))
