"""What a pickle names and would make, from its instructions alone: none is carried out."""

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
"""What training programs leave beside the weights (optimiser settings, paths, options): inert objects stand in for it."""

TORCHS_OWN = re.compile(
    r"torch\.(\w+|(_utils|_tensor|storage|serialization|nn\.parameter|cuda)\.\w+)|_codecs\.encode"
    r"|collections\.(OrderedDict|Counter)"
)
"""What torch's own reader makes, or may make."""

MODULES = r"posix|nt|os|sys|subprocess|shutil|socket|importlib|runpy|pty|ctypes|webbrowser"
RUNS_CODE = re.compile(rf"({MODULES})\..*|builtins\.(eval|exec|execfile|compile|open|__import__)")
"""What a pickle names only to run code while it is read."""

REACHES_CODE = re.compile(
    rf"{MODULES}|builtins|__(globals|builtins|subclasses|dict|bases?|mro|getattribute|import|code|self|loader|spec)__"
)
"""Names of nothing that is pickled: a way from something harmless to what runs code."""

STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "state_dict_ema",
    "model",
    "net",
    "network",
    "network_weights",
    "module",
    "weights",
    "params",
)
"""Where training programs keep the weights inside a checkpoint, in the order in which they are looked for."""

DAMAGE = (OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What Python's readers of zip files and pickles raise when bytes were changed. UnicodeError is a ValueError and
NotImplementedError, of unknown compression, a RuntimeError."""

GETATTR = ("builtins", "getattr")

_MANY = 4
"""From so many tensors on, a dict is one of weights."""

_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ")
_ADDS = ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "BUILD")
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


class Inert:
    """Stands in for an object that is not needed, and does nothing with what it is given."""

    def __new__(cls, *_: object) -> Inert:
        """Takes whatever the file hands over."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class InertDict:
    """Stands in for a class of dicts: torch gives entries to its own kinds of dict alone."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """A dict without a class of its own, for the entries that follow."""
        return OrderedDict()


class InertList:
    """Stands in for a class of lists: torch gives items to a plain list alone."""

    def __new__(cls, *_: object) -> list[Any]:  # type: ignore[misc]
        """A plain list, for the items that follow."""
        return []


@dataclass(eq=False)
class Part:
    """What one instruction would make."""

    kind: str
    """The instruction's name, as Python's pickletools has it."""

    value: Any
    """What stands in the instruction itself."""

    of: list[Part]
    """What it is made of; of a call: what is called, then the arguments."""

    added: dict[str, list[Part]] = field(default_factory=dict)
    """What is given to it later, by the instruction that does so."""

    named: tuple[str, str] | None = None
    """The module and the name, as Python 3 has them, of a class or function that the instruction names."""

    attribute: str | None = None
    """The attribute's name, where this is a `getattr` of something that can be told: a nested class, a bound method."""

    full_name: str = ""
    """The name of the class or function that this is, or is made by; empty for plain data."""

    def __post_init__(self) -> None:
        """Finds the names; those of the parts that it is made of are known."""
        if self.kind in ("GLOBAL", "INST"):
            module, _, name = str(self.value).partition(" ")
        elif self.kind == "STACK_GLOBAL":
            module, name = str(self.of[0].value), str(self.of[1].value)
        elif self.kind in _CALLS:
            self.full_name = self.of[0].full_name
            if self.kind == "REDUCE" and self.of[0].named == GETATTR and len(self.of[1].of) == 2:
                target, attribute = self.of[1].of
                if target.full_name and isinstance(attribute.value, str):
                    self.attribute = attribute.value
                    self.full_name = f"{target.full_name}.{self.attribute}"
            return
        else:
            if self.kind == "BINPERSID" and [part.value for part in self.of[0].of[:1]] == [
                "module"
            ]:  # torch's old format
                self.full_name = self.of[0].of[1].full_name
            return
        self.named = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.full_name = ".".join(self.named)

    @property
    def entries(self) -> list[tuple[Any, Part]]:
        """Keys and values of a plain dict."""
        if self.kind != "EMPTY_DICT" and self.full_name != "collections.OrderedDict":
            return []
        flat = [*self.added.get("SETITEM", ()), *self.added.get("SETITEMS", ())]
        return [(key.value, value) for key, value in zip(flat[::2], flat[1::2], strict=False)]


@dataclass
class Pickled:
    """The instructions of a checkpoint's pickle, up to where it is damaged."""

    parts: list[Part] = field(default_factory=list)
    root: Part | None = None
    """The object that is saved; None where the pickle is damaged."""

    @property
    def names(self) -> list[str]:
        """The classes and functions that it names, in its order: that of the outermost object comes first."""
        names = (p.full_name for p in self.parts if p.named or p.attribute is not None)
        return list(dict.fromkeys(name for name in names if name != ".".join(GETATTR)))

    @property
    def unknown(self) -> list[str]:
        """The names for which nothing can stand in, each by its longest form."""
        stand_ins = self.stand_ins()
        names = [name for name in self.names if name not in stand_ins and not TORCHS_OWN.fullmatch(name)]
        return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]

    def module(self) -> str:
        """The class of the outermost torch module that is pickled as an object, one with modules inside first; or empty."""
        found = [
            (not inside.entries, part.full_name)
            for part in self.parts
            for state in part.added.get("BUILD", ())
            for key, inside in state.entries
            if key == "_modules" and part.full_name
        ]
        return min(found, key=lambda alone: alone[0], default=(True, ""))[1]

    def stand_ins(self) -> dict[str, Any]:
        """What stands in for each harmless name."""
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
        # A plain list or dict has no place for such state, and torch would stumble over it.
        return {name: kind for name, kind in kinds.items() if name not in stateful}

    def runs(self) -> str:
        """The first function by which reading it would run code, or empty.

        Python itself writes `getattr` for nested classes and bound methods; it is harmful only as a way to something else.
        """
        called = {id(part.of[0]) for part in self.parts if part.kind in _CALLS}
        given = {id(x) for p in self.parts for x in (*(p.of if p.attribute is None else ()), *chain(*p.added.values()))}
        for part in self.parts:
            if part.named == GETATTR:
                if id(part) in given or part is self.root:
                    return "builtins.getattr"
            elif part.named:
                if RUNS_CODE.fullmatch(part.full_name) or any(map(REACHES_CODE.fullmatch, part.named[1].split("."))):
                    return part.full_name
            elif part.attribute is not None:
                if any(map(REACHES_CODE.fullmatch, part.attribute.split("."))):
                    return part.full_name
                # Of a class, or a class itself, it makes an object of the checkpoint; of a module, it is any function.
                if id(part) in called and not any(
                    name.lstrip("_")[:1].isupper() for name in part.full_name.split(".")[-2:]
                ):
                    return part.full_name
        return ""

    def holds_weights(self) -> bool:
        """Whether plain weights lie in it, in themselves or under a name that rtseg knows."""
        level = [self.root] if self.root else []
        for _ in range(3):
            if any(sum(_is_tensor(value) for _, value in part.entries) >= _MANY for part in level):
                return True
            level = [value for part in level for key, value in part.entries if key in STATE_KEYS]
        return False


def read_instructions(path: Path) -> Pickled:
    """The instructions of a torch file, or of a plain pickle."""
    pickled = Pickled()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inner = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                if inner is not None:
                    with archive.open(inner) as file:
                        pickled.root = _root(file, pickled.parts)
        else:
            # Mapped, because a damaged length would make a plain file's `read` ask for that much memory.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for _ in range(4):  # torch's old format: magic number, protocol, machine, then the object
                    pickled.root = _root(content, pickled.parts)
    except DAMAGE:
        pickled.root = None  # `torch.load` meets the same damage and says so
    return pickled


def _root(file: Any, parts: list[Part]) -> Part:
    """The object of one pickle; adds all of its parts to `parts`."""
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
            taken = list(_taken(opcode, stack))
            if opcode.name in _ADDS:
                taken[0].added.setdefault(opcode.name, []).extend(taken[1:])
                stack.append(taken[0])
            elif opcode.stack_after:
                stack.append(Part(opcode.name, argument, taken))
                parts.append(stack[-1])
    raise ValueError("a pickle without an end")


def _taken(opcode: Any, stack: list[Part]) -> Iterator[Part]:
    """What an instruction takes from the stack, from the bottom up, without the mark."""
    since_mark: list[Part] = []
    count = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        count = opcode.stack_before.index(pickletools.markobject)
        while (top := stack.pop()).kind != "MARK":
            since_mark.append(top)
    if count > len(stack):
        raise ValueError("a pickle that takes more than there is")
    yield from stack[len(stack) - count :]
    del stack[len(stack) - count :]
    yield from reversed(since_mark)


def _is_tensor(part: Part) -> bool:
    return part.full_name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))
