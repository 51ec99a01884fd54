"""A symbolic actor: a policy's functions are called with it, to learn which values of the actor they compare with what.

An attribute of the symbolic actor (``a.team.id``, ``a["sub"]``) is symbolic too. It can stand where a condition takes a
value, and be compared with a literal. Everything that needs the value in Python raises `PolicyNotExpressibleError`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, TypeAlias
from uuid import UUID

from sqlalchemy import BindParameter, Boolean, ColumnElement, Numeric, Text, Uuid
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.types import TypeEngine

from ..errors import PolicyNotExpressibleError

Step: TypeAlias = tuple[str, bool]
"""A step from a value to another one: the name of an attribute, or (True) the key of an item."""


@dataclass(slots=True)
class Trace:
    """What is being made symbolic: ``what`` names it. ``refusal`` is the first thing that was not possible."""

    what: str
    refusal: PolicyNotExpressibleError | None = None

    def refuse(self, problem: str) -> NoReturn:
        """Raise `PolicyNotExpressibleError`, and keep it: the policy's function could catch it."""
        error = PolicyNotExpressibleError(f"{self.what} can't be a policy of the database: {problem}", field="policies")
        self.refusal = self.refusal or error
        raise error


class ActorValue:  # noqa: PLW1641 - it has a __hash__, which refuses
    """The symbolic actor, or a value of it. Its values can't be used in Python."""

    __slots__ = ("_path", "_trace")

    is_clause_element = False  # SQLAlchemy asks for it

    def __init__(self, trace: Trace, path: tuple[Step, ...] = ()) -> None:
        self._trace, self._path = trace, path

    def __getattr__(self, name: str) -> ActorValue:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return ActorValue(self._trace, (*self._path, (name, False)))

    def __getitem__(self, key: object) -> ActorValue:
        if not isinstance(key, str):
            refuse(self, f"takes the item {key!r} of it; the key of an item must be a text")
        return ActorValue(self._trace, (*self._path, (key, True)))

    def __repr__(self) -> str:
        return path_text(self._path)

    def __clause_element__(self) -> BindParameter[Any]:
        """SQLAlchemy's hook. The parameter gets the type of what it is compared with."""
        return BindParameter(None, self, unique=True)

    def __eq__(self, other: object) -> Any:
        return _compared(self, "==", other)

    def __ne__(self, other: object) -> Any:
        return _compared(self, "!=", other)

    def __lt__(self, other: object) -> Any:
        return _compared(self, "<", other)

    def __le__(self, other: object) -> Any:
        return _compared(self, "<=", other)

    def __gt__(self, other: object) -> Any:
        return _compared(self, ">", other)

    def __ge__(self, other: object) -> Any:
        return _compared(self, ">=", other)


_ARITHMETIC = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "or", "xor"),
)
_IN_PYTHON = {
    "__bool__": "whether it is true",
    "__hash__": "its hash",
    "__str__": "its text",
    "__format__": "its text",
    "__bytes__": "its bytes",
    "__iter__": "its members",
    "__contains__": "its members",
    "__reversed__": "its members",
    "__len__": "its length",
    "__length_hint__": "its length",
    "__call__": "the result of a call of it",
    "__enter__": "the block of it",
    "__await__": "the result of awaiting it",
    "__setattr__": "it to be changed",
    "__delattr__": "it to be changed",
    "__setitem__": "it to be changed",
    "__delitem__": "it to be changed",
    "__index__": "its number",
    "__int__": "its number",
    "__float__": "its number",
    "__complex__": "its number",
    "__round__": "its number",
    "__copy__": "a copy of it",
    "__deepcopy__": "a copy of it",
    "__reduce_ex__": "a copy of it",
    **dict.fromkeys(("__neg__", "__pos__", "__abs__", "__invert__"), "the result of a calculation"),
    **{f"__{side}{name}__": "the result of a calculation" for name in _ARITHMETIC for side in ("", "r", "i")},
}
"""What Python asks of a value, and what it would need."""


def _needing(problem: str) -> Any:
    def method(self: ActorValue, *_: object, **__: object) -> NoReturn:
        refuse(self, f"needs {problem} in Python")

    return method


for _name, _problem in _IN_PYTHON.items():
    if _name != "__setattr__":
        setattr(ActorValue, _name, _needing(_problem))


def refuse(value: ActorValue, problem: str) -> NoReturn:
    """Raise `PolicyNotExpressibleError`: the policy ``problem``, for which it would need this value."""
    trace: Trace = object.__getattribute__(value, "_trace")
    trace.refuse(f"it reads {value!r}, and {problem}.")


def path_of(value: ActorValue) -> tuple[Step, ...]:
    """The steps from the actor to the value."""
    path: tuple[Step, ...] = object.__getattribute__(value, "_path")
    return path


def path_text(path: tuple[Step, ...]) -> str:
    """A path as it is written in Python, such as ``actor.team.id``."""
    return "actor" + "".join(f"[{name!r}]" if is_item else f".{name}" for name, is_item in path)


class ActorCondition(Grouping[Any]):
    """A comparison of a value of the actor with a literal, as SQL. Python can't know whether it is true."""

    inherit_cache = False

    def __init__(self, element: ColumnElement[bool], value: ActorValue) -> None:
        super().__init__(element)
        self.dotmac_value = value

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it always raises
        refuse(
            self.dotmac_value,
            "needs the result of a comparison in Python; return it, or combine it by or_(), and_() and not_()",
        )


@dataclass(frozen=True, slots=True)
class Exactly:
    """A value of the actor, if it is of one kind: a text, a number, a truth value, a UUID, or a member of an enum.

    It is compared as Python would. A value of another kind is NULL in the database.
    """

    value: ActorValue
    kind: type

    def literal(self, other: Any) -> object:
        """A literal in the form in which it is compared."""
        return self.form(other)

    def form(self, value: Any) -> object:
        """The value in the form in which it is compared; None: it is of another kind."""
        if issubclass(self.kind, enum.Enum):
            return next((member.name for member in self.kind if member == value), None)
        if self.kind is Decimal:
            is_number = isinstance(value, (int, float, Decimal))
            number = Decimal(value) if is_number else None
            return number if number is None or number.is_finite() else None
        if self.kind is str and isinstance(value, str):
            return str.__str__(value)
        return value if isinstance(value, self.kind) else None

    @property
    def type(self) -> TypeEngine[Any]:
        """The SQL type of the form."""
        types: dict[type, TypeEngine[Any]] = {Decimal: Numeric(), bool: Boolean(), UUID: Uuid()}
        return types.get(self.kind, Text())

    def parameter(self) -> BindParameter[Any]:
        """The value as a part of an SQL expression."""
        return BindParameter(None, self, type_=self.type, unique=True)


def truth_of(value: ActorValue) -> ColumnElement[bool]:
    """The condition that a value is True."""
    return ActorCondition(Exactly(value, bool).parameter().is_(True), value)


_OPERATORS: dict[str, Any] = {
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _compared(value: ActorValue, operator: str, other: Any) -> Any:
    if isinstance(other, ActorValue):
        refuse(value, "compares it with another value of the actor")
    if hasattr(other, "__clause_element__") or isinstance(other, ColumnElement):
        return _OPERATORS[operator](value.__clause_element__(), other)
    kind = _kind_of(value, other)
    if operator not in ("==", "!=") and kind is not Decimal:
        refuse(
            value, f"orders it by {operator} with a {type(other).__name__}, which Python and PostgreSQL can differ in"
        )
    exactly = Exactly(value, kind)
    return ActorCondition(_OPERATORS[operator](exactly.parameter(), exactly.literal(other)), value)


def _kind_of(value: ActorValue, other: object) -> type:
    if isinstance(other, enum.Enum):
        return type(other)
    if isinstance(other, (int, Decimal)):  # a bool is a number: True == 1
        return Decimal
    for kind in (str, UUID):
        if isinstance(other, kind):
            return kind
    refuse(
        value,
        f"compares it with a {type(other).__name__}; only a text, an int, a Decimal, a bool, a UUID or an enum's "
        "member is possible",
    )
