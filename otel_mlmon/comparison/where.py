"""A condition on rows, such as `month <= 4 and carrier in ("UA", "AA")`, evaluated by Arrow; nothing else is run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from otel_mlmon.profile.arrow import flatten
from otel_mlmon.profile.sources import Chunk, Source, SourceError, read_table

GRAMMAR: Final = (
    'comparisons (==, !=, <, <=, >, >=, in, not in, is None, is not None) of a column with a value, joined by "and", '
    '"or", "not" and brackets; a name that is no identifier is written col("my name")'
)
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been read.

    Args:
        text: as it was given.
        tree: its expression.
    """

    text: str
    tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read it.

        Raises:
            SourceError: it is none; says what is allowed.
        """
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            raise SourceError(f"where: cannot read {text!r}: {GRAMMAR}") from None
        condition = cls(text, tree)
        condition.columns()
        return condition

    def columns(self) -> set[str]:
        """Columns that it needs.

        Raises:
            SourceError: it holds something else than conditions.
        """
        found: set[str] = set()
        self._walk(self.tree, found)
        return found

    def keep(self, source: Source) -> Source:
        """The rows of a source that it is true for; where a value is missing it is not."""

        def chunks() -> Iterator[Chunk]:
            for chunk in source.open():
                table = pa.table({name: _to_arrow(column) for name, column in chunk.columns.items()})
                missing = self.columns() - set(table.column_names)
                if missing:
                    raise SourceError(f"where: no column {', '.join(map(repr, sorted(missing)))} in the data")
                try:
                    mask = self._evaluate(self.tree, {name: flatten(table.column(name)) for name in self.columns()})
                except pa.ArrowException as error:
                    raise SourceError(f"where: {self.text!r}: {error}") from None
                kept = table.filter(mask)
                yield Chunk(kept.num_rows, read_table(kept) or {})

        return Source(chunks, None, source.once)

    def _walk(self, node: ast.expr, found: set[str]) -> None:
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                self._walk(value, found)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._walk(node.operand, found)
        elif isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                name = _name_of(side)
                if name is not None:
                    found.add(name)
                elif not _is_value(side):
                    self._refuse(side)
            if all(_name_of(side) is None for side in (node.left, *node.comparators)):
                self._refuse(node)
        elif (name := _name_of(node)) is not None:
            found.add(name)
        else:
            self._refuse(node)

    def _refuse(self, node: ast.expr) -> None:
        raise SourceError(f"where: {ast.unparse(node)!r} in {self.text!r} is not allowed: {GRAMMAR}")

    def _evaluate(self, node: ast.expr, columns: Columns) -> Any:
        if isinstance(node, ast.BoolOp):
            join: Callable[[Any, Any], Any] = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            result = self._evaluate(node.values[0], columns)
            for value in node.values[1:]:
                result = join(result, self._evaluate(value, columns))
            return result
        if isinstance(node, ast.UnaryOp):
            return pc.invert(self._evaluate(node.operand, columns))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            result = None
            for left, operation, right in zip(sides, node.ops, sides[1:], strict=False):
                part = _compare(operation, left, right, columns)
                result = part if result is None else pc.and_kleene(result, part)
            return result
        return columns[_name_of(node) or ""].cast(pa.bool_())


def _name_of(node: ast.expr) -> str | None:
    """Name of a column; None where the node is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "col" and len(node.args) == 1:
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and not node.keywords:
            return argument.value
    return None


def _is_value(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _compare(operation: ast.cmpop, left: ast.expr, right: ast.expr, columns: Columns) -> Any:
    names = _name_of(left), _name_of(right)
    kind = next(columns[name].type for name in names if name is not None)
    if isinstance(operation, (ast.Is, ast.IsNot)):
        missing = columns[names[0] or ""].is_null(nan_is_null=True)
        return missing if isinstance(operation, ast.Is) else pc.invert(missing)
    if isinstance(operation, (ast.In, ast.NotIn)):
        array = columns[names[0] or ""]
        values = [_scalar(value, kind).as_py() for value in ast.literal_eval(right)]
        inside = pc.is_in(array, value_set=pa.array(values, _plain(kind)))
        return inside if isinstance(operation, ast.In) else pc.and_(pc.invert(inside), array.is_valid())
    a, b = (
        columns[name] if name is not None else _scalar(ast.literal_eval(side), kind)
        for name, side in zip(names, (left, right), strict=True)
    )
    return getattr(pc, _COMPARE[type(operation)])(a, b)


def _scalar(value: Any, kind: Any) -> Any:
    """A value as the column has them: times are written as text, such as "2013-05-01"."""
    scalar = pa.scalar(value)
    if pa.types.is_temporal(kind) or isinstance(value, str):
        return scalar.cast(_plain(kind))
    return scalar


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _to_arrow(column: Any) -> Any:
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return flatten(column) if pa.types.is_dictionary(column.type) else column
    if hasattr(column, "to_arrow"):
        return column.to_arrow()
    return pa.array(column, from_pandas=True)
