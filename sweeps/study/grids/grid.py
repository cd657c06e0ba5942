"""Grid blocks of a study: axes over dotted paths, combined by product, zip and list, less what is excluded."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from results.errors import SpecError

from ..fields import as_table, check_keys, check_tree, parse
from .conditions import condition
from .isoflop import IsoFlop

Settings = dict[str, Any]
"""Values by dotted path."""


@dataclass(frozen=True)
class GridBlock:
    """One [[grid]] block: every combination of its product, zip and list axes that no exclusion matches."""

    where: str
    product: Mapping[str, list[Any]] = field(default_factory=dict)
    zip: Mapping[str, list[Any]] = field(default_factory=dict)
    list: tuple[Mapping[str, Any], ...] = ()
    exclude: tuple[Mapping[str, Callable[[Any], bool]], ...] = ()
    seeds: Mapping[str, Any] = field(default_factory=dict)
    isoflop: IsoFlop | None = None

    @property
    def paths(self) -> frozenset[str]:
        """All dotted paths that the block sets: its axes', and the budgets of an IsoFLOP grid."""
        axes = frozenset(self.product) | frozenset(self.zip) | {path for row in self.list for path in row}
        return axes | {"generator.train_images"} if self.isoflop else axes

    @property
    def size(self) -> int:
        """Combinations before exclusions, without building any."""
        zipped = len(next(iter(self.zip.values()))) if self.zip else 1
        return math.prod(len(values) for values in self.product.values()) * zipped * (len(self.list) or 1)

    def combinations(self, base: Mapping[str, Any]) -> Iterator[Settings]:
        """The combinations in order (the last product axis varies fastest), exclusions applied.

        `base` are the sections that the axes overwrite, as nested tables; exclusions may name what is set there.
        """
        zipped = [dict(zip(self.zip, row, strict=True)) for row in zip(*self.zip.values(), strict=True)] or [{}]
        for row in self.list or ({},):
            for together in zipped:
                for values in itertools.product(*self.product.values()):
                    settings = {**row, **together, **dict(zip(self.product, values, strict=True))}
                    if not any(
                        all(meets(self.value(path, settings, base)) for path, meets in conditions.items())
                        for conditions in self.exclude
                    ):
                        yield settings

    def value(self, path: str, settings: Settings, base: Mapping[str, Any]) -> Any:
        """The value at a path under these settings: an axis, part of a table on an axis, or what a section sets."""
        steps = path.split(".")
        for depth in range(len(steps), 0, -1):
            prefix = ".".join(steps[:depth])
            if prefix in settings:
                return _inside(settings[prefix], steps[depth:])
        return _inside(base, steps)


def _inside(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def parse_block(table: Any, number: int, base: Mapping[str, Any]) -> GridBlock:
    """The block of the `number`-th [[grid]] table. Raises SpecError that names the offending key."""
    where = f"[[grid]] block {number}"
    check_keys(
        as_table(table, "grid", "[[grid]] tables"), where, ("product", "zip", "list", "isoflop", "exclude", "seeds")
    )
    product = _axes(table.get("product", {}), f"{where}.product")
    zipped = _axes(table.get("zip", {}), f"{where}.zip")
    lengths = {path: len(values) for path, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"{where}.zip has axes of different lengths {lengths}; allowed: one length for all")
    rows = _rows(table.get("list", []), f"{where}.list")
    excluded = _rows(table.get("exclude", []), f"{where}.exclude")
    exclude = tuple({path: condition(wanted) for path, wanted in row.items()} for row in excluded)
    seeds = as_table(table.get("seeds", {}), f"{where}.seeds", "a table like [seeds]")
    isoflop = None
    if "isoflop" in table:
        isoflop = parse(IsoFlop, table["isoflop"], f"{where}.isoflop", "a table such as { flops = [1e15, 1e16] }")
    block = GridBlock(where, product, zipped, rows, exclude, seeds, isoflop)
    _check_overlap(block)
    for path in dict.fromkeys(path for row in excluded for path in row):
        prefixes = itertools.accumulate(path.split("."), "{}.{}".format)
        if block.paths.isdisjoint(prefixes) and block.value(path, {}, base) is None:
            raise SpecError(
                f"{where}.exclude names {path}, which neither an axis of the block nor a section sets; "
                f"allowed: {', '.join(sorted(block.paths))} and what the sections set"
            )
    return block


def _axes(table: Any, where: str) -> dict[str, list[Any]]:
    for path, values in as_table(table, where, "a table of dotted path = [values]").items():
        if not isinstance(values, list) or not values:
            raise SpecError(
                f'{where}: "{path}" = {values!r} is not allowed; allowed: a list of at least one value '
                '(quote the dotted path: "generator.size" = [...])'
            )
        for value in values:
            check_tree(path, value, where)
    return dict(table)


def _rows(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    rows = value if isinstance(value, list) else [value]
    for row in rows:
        if not isinstance(row, Mapping) or not row:
            raise SpecError(f"{where} = {row!r} is not allowed; allowed: a list of tables of dotted path = value")
        for path, inner in row.items():
            check_tree(path, None if where.endswith(".exclude") else inner, where)
    return tuple(rows)


def _check_overlap(block: GridBlock) -> None:
    """Two axes may not set one field: which wins would depend on their order."""
    axes = Counter([*block.product, *block.zip, *{path for row in block.list for path in row}])
    twice = sorted(path for path, number in axes.items() if number > 1)
    if twice:
        raise SpecError(f"{block.where} sets {twice[0]} twice; allowed: one of product, zip and list")
    if block.isoflop and "generator.train_images" in axes:
        raise SpecError(f"{block.where} sets generator.train_images beside isoflop, which derives it; allowed: one")
    for outer, inner in itertools.permutations(sorted(block.paths), 2):
        if inner.startswith(f"{outer}."):
            raise SpecError(f"{block.where} sets both {outer} and {inner}, a part of it; allowed: one of the two")
