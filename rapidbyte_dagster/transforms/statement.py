"""A query, read: one SELECT that makes at most one row of each row, of nothing but that row.

    SELECT id, upper(name) AS name FROM stream WHERE id > 7
      │ the parser's tree
      ▼
    a list of everything that is allowed; the rest is refused, with the reason
      │ the stream's columns
      ▼
    outputs: id as it is, name computed            condition: id > 7

A query runs over one batch at a time, so that anything whose result depends on other rows would be answered wrongly:
per batch. What is not known to be harmless is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from rapidbyte_dagster.errors import ConfigError, Kind
from rapidbyte_dagster.transforms.duckdb_engine import RELATION, Engine

Tree = dict[str, Any]

_OTHER_ROWS: Final = "its result depends on more than one row, and rows pass one batch at a time"
_NOT_THE_ROW: Final = "its result depends on something else than the row"

_SHAPE: Final = "write SELECT … FROM stream [WHERE …]"

_EXPRESSIONS: Final = frozenset(
    ("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA")
) | {"OPERATOR", "TYPE"}

_OPERATORS: Final = frozenset(
    ("ARRAY_CONSTRUCTOR", "ARRAY_EXTRACT", "ARRAY_SLICE", "COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE")
) | {"OPERATOR_IS_NOT_NULL", "OPERATOR_IS_NULL", "OPERATOR_NOT", "OPERATOR_NULLIF", "OPERATOR_TRY", "STRUCT_EXTRACT"}

_REFUSED_EXPRESSIONS: Final = {
    "WINDOW": f"a window function: {_OTHER_ROWS}",
    "SUBQUERY": "a subquery: there is no other relation, and the rows pass one batch at a time",
    "PARAMETER": "a parameter: nothing fills it in",
    "POSITIONAL_REFERENCE": "a column by its number: name it",
    "STAR": "`*` inside of an expression: it may only stand alone in the list",
    "DEFAULT": "DEFAULT",
}

_REFUSED_CLAUSES: Final = {
    "group_expressions": f"GROUP BY: {_OTHER_ROWS}",
    "group_sets": f"GROUP BY: {_OTHER_ROWS}",
    "having": f"HAVING: {_OTHER_ROWS}",
    "sample": f"a sample: {_OTHER_ROWS}",
    "qualify": f"QUALIFY: {_OTHER_ROWS}",
}

_REFUSED_MODIFIERS: Final = {
    "DISTINCT_MODIFIER": f"DISTINCT: {_OTHER_ROWS}",
    "ORDER_MODIFIER": "ORDER BY: rows pass one batch at a time, in the order in which they come",
    "LIMIT_MODIFIER": f"LIMIT and OFFSET: {_OTHER_ROWS}",
    "LIMIT_PERCENT_MODIFIER": f"LIMIT and OFFSET: {_OTHER_ROWS}",
}

_KINDS_OF_FUNCTIONS: Final = {
    "aggregate": f"an aggregate: {_OTHER_ROWS}",
    "window": f"a window function: {_OTHER_ROWS}",
    "table": "a function that makes other rows than the one it is given",
    "table_macro": "a function that makes other rows than the one it is given",
    "pragma": "a setting",
}

_IMPURE: Final = frozenset(("current_localtime", "current_localtimestamp", "index_key", "json_serialize_plan"))
"""Functions that the catalog calls consistent although they look at the clock or at the catalog. So does `age` of one
argument."""

_NAMES_OF_NOW: Final = frozenset(
    ("current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp")
) | {"current_user", "localtime", "localtimestamp", "session_user", "user"}
"""What SQL writes like a column, and is none."""

_INTERNAL: Final = "__internal"

_MACRO_DEPTH: Final = 8
"""Macros are made of macros; the deepest known are three."""


@dataclass(frozen=True)
class Output:
    """One column of the result."""

    name: str
    source: str | None
    """The stream's column that it is, untouched."""
    text: str = ""
    """Else the SQL that makes it,"""
    casts: tuple[str, ...] = ()
    """and the casts in there: where one of them fails, it is told instead of the whole."""
    guarded: str | None = None
    """The SQL that is run instead, where DuckDB would not see every failure."""

    @property
    def sql(self) -> str:
        return self.guarded or self.text


@dataclass(frozen=True)
class Bound:
    """A query over columns that are known."""

    outputs: tuple[Output, ...]
    condition: str | None
    """As SQL that is asked from left to right, TRUE for rows that stay."""
    used: tuple[str, ...]
    """The stream's columns that something is computed of, in its order."""

    @property
    def computed(self) -> tuple[Output, ...]:
        return tuple(output for output in self.outputs if output.source is None)


class Statement:
    """`query`, parsed and found harmless. Raises `ConfigError` that says what is not."""

    def __init__(self, engine: Engine, query: str) -> None:
        self._engine = engine
        node = _select_node(engine.parse(query))
        self._items: list[Tree] = node["select_list"]
        self._where: Tree | None = node["where_clause"]
        self._relation = str(node["from_table"]["alias"] or RELATION)
        for item in self._items:
            if item["class"] == "STAR":
                self._verify_star(item)
            else:
                self._verify(item)
        if self._where is not None:
            self._verify(self._where)

    def bind(self, columns: Sequence[str], read_as: Mapping[str, str] | None = None) -> Bound:
        """The query over the stream's `columns`, of which those in `read_as` hold texts of these types.

        Raises `ConfigError`: a column that is not there, a name that two columns would have, an expression without one.
        """
        binder = _Binder(self._engine, self._relation, columns, read_as or {})
        outputs: list[Output] = []
        for item in self._items:
            outputs += binder.star(item) if item["class"] == "STAR" else [binder.output(item)]
        if not outputs:
            _refuse("no column is left")
        names = [output.name for output in outputs]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            _refuse(f"two columns of the result are called {repeated!r}: give one another name with AS")
        condition = None if self._where is None else binder.condition(binder.resolved(self._where))
        return Bound(tuple(outputs), condition, binder.used())

    def _verify_star(self, star: Tree) -> None:
        if star["columns"] or star["expr"] is not None or star["qualified_exclude_list"]:
            _refuse("COLUMNS(…): name the columns")
        for replacement in star["replace_list"]:
            self._verify(replacement["value"])

    def _verify(self, expression: Tree) -> None:
        for each in _expressions(expression):
            kind = each["class"]
            if kind not in _EXPRESSIONS:
                _refuse(_REFUSED_EXPRESSIONS.get(kind, f"{kind}, which is not known here"))
            if kind == "OPERATOR" and each["type"] not in _OPERATORS:
                _refuse(f"{each['type']}, which is not known here")
            if kind == "FUNCTION":
                self._verify_call(each)

    def _verify_call(self, call: Tree, depth: int = 0) -> None:
        name = call["function_name"]
        if call["filter"] is not None or call["distinct"] or call["order_bys"]["orders"] or call["export_state"]:
            _refuse(f"{name}(…) with DISTINCT, ORDER BY or FILTER: {_OTHER_ROWS}")
        found = self._engine.functions(name)
        if call["schema"] or call["catalog"] or name.startswith(_INTERNAL) or not found:
            _refuse(f"there is no function {name}")
        kinds = {function.kind for function in found}
        if not kinds & {"scalar", "macro"}:
            _refuse(f"{name}(…) is {next(why for kind, why in _KINDS_OF_FUNCTIONS.items() if kind in kinds)}")
        of_now = name.lower() == "age" and len(call["arguments"]) == 1
        if of_now or name.lower() in _IMPURE or any(each.stability not in (None, "CONSISTENT") for each in found):
            _refuse(f"{name}(…): {_NOT_THE_ROW}")
        for each in found:
            if each.kind == "macro":
                self._verify_macro(name, str(each.definition), each.parameters, depth + 1)

    def _verify_macro(self, name: str, definition: str, parameters: Sequence[str], depth: int) -> None:
        """What it is made of must be harmless in turn, and of its arguments alone."""
        tree = self._engine.parse(f"SELECT {definition}")
        if depth > _MACRO_DEPTH or tree["error"]:
            _refuse(f"{name}(…), which is not known here")
        for each in _expressions(tree["statements"][0]["node"]["select_list"]):
            known = each["class"] in _EXPRESSIONS and (each["class"] != "OPERATOR" or each["type"] in _OPERATORS)
            of_arguments = each["class"] != "COLUMN_REF" or each["column_names"][0] in parameters
            if not known or not of_arguments:
                _refuse(f"{name}(…): {_NOT_THE_ROW}")
            if each["class"] == "FUNCTION":
                # Of its own catalog: `"system".main.current_database()`.
                self._verify_call({**each, "schema": "", "catalog": ""}, depth)


class _Binder:
    """Finds the columns that expressions mean."""

    def __init__(self, engine: Engine, relation: str, columns: Sequence[str], read_as: Mapping[str, str]) -> None:
        self._engine = engine
        self._read_as = read_as
        self._relation = relation
        self._columns = columns
        self._used: set[str] = set()

    def used(self) -> tuple[str, ...]:
        used = tuple(name for name in self._columns if name in self._used)
        folded: dict[str, str] = {}
        for name in used:
            if (other := folded.setdefault(name.lower(), name)) != name:
                _refuse(f"it computes with {other!r} and {name!r}, which DuckDB cannot tell apart")
        return used

    def output(self, item: Tree) -> Output:
        alias = item["alias"]
        if item["class"] == "COLUMN_REF":
            column = self._column(item["column_names"])
            return Output(alias or column, column)
        if not alias:
            _refuse(f"{self._engine.unparse(item)} has no name: give it one with AS")
        return self._computed(alias, item)

    def star(self, star: Tree) -> Iterator[Output]:
        if star["relation_name"] not in ("", self._relation):
            self._no_column([star["relation_name"], "*"])
        left_out = {self._column([name]) for name in star["exclude_list"]}
        replaced = {self._column([each["key"]]): each["value"] for each in star["replace_list"]}
        renamed = {self._column([each["key"]["column"]]): each["value"] for each in star["rename_list"]}
        for column in self._columns:
            if column in left_out:
                continue
            if column in replaced:
                yield self._computed(column, replaced[column])
            else:
                yield Output(renamed.get(column, column), column)

    def resolved(self, tree: Any, parameters: frozenset[str] = frozenset()) -> Any:
        """`tree` with every column as it is called in the stream. `parameters` are those of the lambdas around it."""
        if isinstance(tree, list):
            return [self.resolved(each, parameters) for each in tree]
        if not isinstance(tree, dict):
            return tree
        if tree.get("class") == "COLUMN_REF":
            if tree["column_names"][0].lower() in parameters:
                return tree
            column = self._column(tree["column_names"])
            self._used.add(column)
            named = {**tree, "column_names": [column]}
            return named if column not in self._read_as else self._cast(named, self._read_as[column])
        if tree.get("class") == "LAMBDA" and tree["syntax_type"] == "LAMBDA_KEYWORD":
            own = {
                each["column_names"][0].lower() for each in _expressions(tree["lhs"]) if each["class"] == "COLUMN_REF"
            }
            return {**tree, "expr": self.resolved(tree["expr"], parameters | own)}
        return {key: self.resolved(value, parameters) for key, value in tree.items()}

    def condition(self, tree: Tree) -> str:
        """`tree` as SQL that is TRUE where it holds. AND and OR become CASE: their parts are asked from left to right,
        each only of rows that the one before it leaves open, so that it never depends on DuckDB's plan whether a row
        fails."""
        if tree["class"] != "CONJUNCTION":
            return f"CAST({self._engine.unparse(tree)} AS BOOLEAN)"
        first, *others = (self.condition(child) for child in tree["children"])
        for other in others:
            if tree["type"] == "CONJUNCTION_AND":
                first = f"CASE WHEN {first} THEN {other} ELSE false END"
            else:
                first = f"CASE WHEN {first} THEN true ELSE {other} END"
        return first

    def _computed(self, name: str, expression: Tree) -> Output:
        resolved = self.resolved(expression)
        casts = [self._engine.unparse(each) for each in _casts(resolved)]
        return Output(name, None, self._engine.unparse(resolved), tuple(dict.fromkeys(casts)))

    def _cast(self, tree: Tree, type_name: str) -> Tree:
        [cast] = self._engine.parse(f"SELECT CAST(x AS {type_name})")["statements"][0]["node"]["select_list"]
        return {**cast, "child": tree}

    def _column(self, path: Sequence[str]) -> str:
        """A column by the name that a query calls it; one that is spelt like it counts before others."""
        if len(path) == 2 and path[0].lower() == self._relation.lower():
            path = path[1:]
        name = path[0]
        if len(path) == 1:
            if name in self._columns:
                return name
            found = [column for column in self._columns if column.lower() == name.lower()]
            if len(found) == 1:
                return found[0]
            if found:
                _refuse(f"{name!r} may be any of: {', '.join(found)}. Write it as the stream has it")
        return self._no_column(path)

    def _no_column(self, path: Sequence[str]) -> NoReturn:
        if path[0].lower() in _NAMES_OF_NOW:
            _refuse(f"{path[0]}: {_NOT_THE_ROW}")
        _refuse(f"there is no column {'.'.join(path)!r} in the stream, which has: {', '.join(self._columns)}")


def _select_node(tree: Tree) -> Tree:
    """The SELECT of a query that is nothing else."""
    if tree["error"]:
        if tree["error_type"] == "not implemented":
            _refuse("it is no SELECT")
        _refuse(str(tree["error_message"]))
    statements = tree["statements"]
    if len(statements) != 1:
        _refuse(f"it has {len(statements)} statements" if statements else "it is empty")
    node: Tree = statements[0]["node"]
    if node["type"] == "SET_OPERATION_NODE":
        _refuse("UNION, EXCEPT or INTERSECT: there is no other relation")
    if node["type"] != "SELECT_NODE" or set(node) != _SELECT_KEYS:
        _refuse(f"{node['type']}, which is not known here")
    if node["cte_map"]["map"]:
        _refuse("WITH: there is no other relation")
    for modifier in node["modifiers"]:
        _refuse(_REFUSED_MODIFIERS.get(modifier["type"], f"{modifier['type']}, which is not known here"))
    for clause, why in _REFUSED_CLAUSES.items():
        if node[clause]:
            _refuse(why)
    if node["aggregate_handling"] != "STANDARD_HANDLING":
        _refuse(f"GROUP BY: {_OTHER_ROWS}")
    _verify_relation(node["from_table"])
    return node


_SELECT_KEYS: Final = frozenset(_REFUSED_CLAUSES) | {
    "type",
    "modifiers",
    "cte_map",
    "select_list",
    "from_table",
    "where_clause",
    "aggregate_handling",
}


def _verify_relation(relation: Tree) -> None:
    if relation["sample"] is not None:
        _refuse(_REFUSED_CLAUSES["sample"])
    match relation["type"]:
        case "BASE_TABLE":
            path = relation["qualified_name"]["path"]
            if path != [RELATION] or relation["at_clause"] is not None or relation["column_name_alias"]:
                _refuse(f"FROM {'.'.join(path)}: there is no relation but `{RELATION}`, as it is")
        case "JOIN":
            _refuse(f"a join: {_OTHER_ROWS}, and there is no other relation")
        case "EMPTY":
            _refuse(f"it has no FROM {RELATION}")
        case "SUBQUERY":
            _refuse(_REFUSED_EXPRESSIONS["SUBQUERY"])
        case "TABLE_FUNCTION":
            _refuse(f"a function in FROM: there is no relation but `{RELATION}`")
        case _:
            _refuse("it is no SELECT FROM a relation")


def _expressions(tree: Any) -> Iterator[Tree]:
    """All that are in `tree`, itself too."""
    if isinstance(tree, list):
        for each in tree:
            yield from _expressions(each)
    elif isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _expressions(value)


def _casts(tree: Any) -> Iterator[Tree]:
    """Those that fail where they cannot convert; not in lambdas, whose parameters have no value outside."""
    if isinstance(tree, list):
        for each in tree:
            yield from _casts(each)
    elif isinstance(tree, dict) and tree.get("class") != "LAMBDA":
        for value in tree.values():
            yield from _casts(value)
        if tree.get("class") == "CAST" and not tree["try_cast"]:
            yield tree


def _refuse(what: str) -> NoReturn:
    raise ConfigError(f"query: {what}", kind=Kind.CONFIG, hint=_SHAPE)
