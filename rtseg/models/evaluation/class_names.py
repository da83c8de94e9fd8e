"""Class names of a model and of a data set that mean the same: spelling, plural and known synonyms."""

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
"""Names of the same thing, in CamVid, Cityscapes and other data sets."""

SIMILAR: tuple[tuple[str, ...], ...] = (
    ("tree", "vegetation"),
    ("bicyclist", "cyclist", "rider"),
)
"""Names whose classes differ at the edges: Cityscapes' `vegetation` has hedges, its `rider` is without the bicycle and may ride a
motorcycle."""


@dataclass(frozen=True)
class ClassMatch:
    """Which class of a model is which class of a data set. No class is in two pairs."""

    pairs: tuple[tuple[str, str, str], ...]
    """(model's name, data set's name, how): how is `same name`, `spelling`, `synonym` or `similar`."""

    model_only: tuple[str, ...]
    """Classes of the model without a counterpart: where it predicts them, it is wrong."""

    data_only: tuple[str, ...]
    """Classes of the data set without a counterpart: their pixels are not scored."""

    ambiguous: tuple[str, ...]
    """Why classes that could be matched were not, in words."""

    def renamed(self) -> list[tuple[str, str, str]]:
        """Return the pairs whose names differ."""
        return [pair for pair in self.pairs if pair[2] != "same name"]


def match_classes(model: Sequence[str], data: Sequence[str]) -> ClassMatch:
    """Match classes by name, one to one: the same name first, then spelling and plural, then synonyms.

    Where several classes could have the same counterpart, none is matched: `rider` and `cyclist` are both near to `bicyclist`.
    """
    model_left, data_left = list(model), list(data)
    pairs: list[tuple[str, str, str]] = []
    ambiguous: list[str] = []
    for how, key in (
        ("same name", lambda name: name.strip().lower()),
        ("spelling", _spelling),
        ("synonym", _group_of(SYNONYMS)),
        ("similar", _group_of(SIMILAR)),
    ):
        for mine, theirs in _candidates(model_left, data_left, key):
            if len(mine) == len(theirs) == 1:
                pairs.append((mine[0], theirs[0], how))
                model_left.remove(mine[0])
                data_left.remove(theirs[0])
            else:
                ambiguous.append(f"{_either(theirs)} of the labels could be {_either(mine)} of the model")
    pairs.sort(key=lambda pair: list(data).index(pair[1]))
    return ClassMatch(tuple(pairs), tuple(model_left), tuple(data_left), tuple(dict.fromkeys(ambiguous)))


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def _candidates(
    model: Sequence[str], data: Sequence[str], key: Callable[[str], str | None]
) -> list[tuple[list[str], list[str]]]:
    """Classes of the model and the data set that have the same key."""
    mine: dict[str, list[str]] = {}
    theirs: dict[str, list[str]] = {}
    for names, by_key in ((model, mine), (data, theirs)):
        for name in names:
            found = key(name)
            if found:
                by_key.setdefault(found, []).append(name)
    return [(mine[found], theirs[found]) for found in mine if found in theirs]


def _spelling(name: str) -> str:
    """A name's letters and digits, without a plural s: `Traffic_Signs` is `trafficsign`."""
    key = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    if key.endswith("ies") and len(key) > 4:
        return key[:-3] + "y"
    if key.endswith(("xes", "ches", "shes", "sses", "buses")):
        return key[:-2]
    if key.endswith("s") and not key.endswith(("ss", "us", "is")) and len(key) > 3:
        return key[:-1]
    return key


def _group_of(groups: Sequence[Sequence[str]]) -> Callable[[str], str | None]:
    """A function from a name to the first name of its group; None: it is in none."""
    first = {_spelling(name): group[0] for group in groups for name in group}
    return lambda name: first.get(_spelling(name))
