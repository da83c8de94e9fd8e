"""Matching of class names of a model and a data set: spelling, plural and known synonyms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("road", "roadway", "street"),
    ("car", "automobile"),
    ("pavement", "sidewalk", "footpath", "footway"),
    ("pedestrian", "person", "people", "human"),
    ("pole", "column pole"),
    ("sign", "sign symbol", "traffic sign", "road sign"),
    ("traffic light", "traffic signal"),
    ("motorcycle", "motorbike", "motorcycle scooter"),
    ("bicycle", "bike"),
    ("lane marking", "road marking", "lane mkgs driv"),
    ("truck", "lorry"),
    ("background", "bg"),
)
"""Names of the same class in CamVid, Cityscapes and other data sets."""

SIMILAR: tuple[tuple[str, ...], ...] = (
    ("tree", "vegetation"),
    ("bicyclist", "cyclist", "rider"),
)
"""Names of classes with slightly different definitions: `vegetation` of Cityscapes includes hedges, and its `rider` excludes
the bicycle and includes riders of motorcycles."""


@dataclass(frozen=True)
class ClassMatch:
    """Pairs of a model's class and a data set's class. No class is in two pairs."""

    pairs: tuple[tuple[str, str, str], ...]
    """(model's name, data set's name, kind of match): `same name`, `spelling`, `synonym` or `similar`."""

    model_only: tuple[str, ...]
    """Classes of the model without a counterpart. Predictions of them count as errors."""

    data_only: tuple[str, ...]
    """Classes of the data set without a counterpart. Their pixels are not scored."""

    ambiguous: tuple[str, ...]
    """Messages about classes that have several possible counterparts and were not matched."""

    def renamed(self) -> list[tuple[str, str, str]]:
        """Return the pairs whose names differ."""
        return [pair for pair in self.pairs if pair[2] != "same name"]


def match_classes(model: Sequence[str], data: Sequence[str]) -> ClassMatch:
    """Match classes by name, one to one: the same name first, then spelling and plural, then synonyms.

    If several classes have the same possible counterpart, none is matched: `rider` and `cyclist` are both similar to `bicyclist`.
    """
    model_left, data_left = list(model), list(data)
    pairs: list[tuple[str, str, str]] = []
    ambiguous: list[str] = []
    for kind, key in (
        ("same name", lambda name: name.strip().lower()),
        ("spelling", _spelling),
        ("synonym", _group_of(SYNONYMS)),
        ("similar", _group_of(SIMILAR)),
    ):
        candidates = _by_key(data_left, key)
        for group, mine in _by_key(model_left, key).items():
            theirs = candidates.get(group, [])
            if len(mine) == len(theirs) == 1:
                pairs.append((mine[0], theirs[0], kind))
                model_left.remove(mine[0])
                data_left.remove(theirs[0])
            elif theirs:
                ambiguous.append(f"{_either(theirs)} of the labels could be {_either(mine)} of the model")
    pairs.sort(key=lambda pair: list(data).index(pair[1]))
    return ClassMatch(tuple(pairs), tuple(model_left), tuple(data_left), tuple(dict.fromkeys(ambiguous)))


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def _by_key(names: Sequence[str], key: Callable[[str], str | None]) -> dict[str, list[str]]:
    """Return the names that have the same key, by key."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if group := key(name):
            groups.setdefault(group, []).append(name)
    return groups


def _spelling(name: str) -> str:
    """Return the letters and digits of a name, without a plural s: `Traffic_Signs` is `trafficsign`."""
    key = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    if key.endswith("ies") and len(key) > 4:
        return key[:-3] + "y"
    if key.endswith(("xes", "ches", "shes", "sses", "buses")):
        return key[:-2]
    if key.endswith("s") and not key.endswith(("ss", "us", "is")) and len(key) > 3:
        return key[:-1]
    return key


def _group_of(groups: Sequence[Sequence[str]]) -> Callable[[str], str | None]:
    """Return a function from a name to the first name of its group, None if it is in no group."""
    first = {_spelling(name): group[0] for group in groups for name in group}
    return lambda name: first.get(_spelling(name))
