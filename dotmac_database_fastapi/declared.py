"""The Python types of columns whose values are converted, from the annotations of their class or the column type.

A `TypeDecorator` over BigInteger may convert from and to `Decimal`. The type that it decorates describes what is
stored; clients read and write the Python values.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from contextlib import suppress
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import TypeAdapter
from sqlalchemy import types as sa
from sqlalchemy.orm import Mapped

from dotmac_database import Traits

from .aliases import Annotation, ColumnType

_HOOKS = ("process_bind_param", "process_result_value", "bind_processor", "result_processor")


def converts(type_: ColumnType) -> bool:
    """Whether the column type is a `UserDefinedType`, or a user's `TypeDecorator` that converts values.

    Then the Python values can differ from those of the underlying type. SQLAlchemy's own decorators, such as `Interval`
    and `PickleType`, count as underlying types.
    """
    if isinstance(type_, sa.UserDefinedType):
        return True
    if not isinstance(type_, sa.TypeDecorator) or _is_sqlalchemys(type(type_)):
        return False
    return any(getattr(type(type_), hook) is not getattr(sa.TypeDecorator, hook) for hook in _HOOKS) or converts(
        type_.impl_instance
    )


UNKNOWN: Annotation = object()
"""The result of `value_type` if a column's values are converted, and nothing declares their Python type."""


def value_type(traits: Traits[object], key: str) -> Annotation:
    """The Python type of a column's values if it differs from that of the underlying type; else None.

    It is the annotation of the class (``price: Mapped[Decimal]``), else the column type's own ``python_type``,
    whichever Pydantic supports; `UNKNOWN` if it supports neither.
    """
    type_ = traits.columns[key].type
    if not converts(type_):
        return None
    said = annotation_of(traits.model, key), _python_type(type_)
    declared = next(filter(_is_known, said), UNKNOWN)
    return None if declared is _python_type(plain_type(type_), declared=False) else declared


def plain_type(type_: ColumnType) -> ColumnType:
    """A column type without its decorators."""
    while isinstance(type_, sa.TypeDecorator) and not isinstance(type_, (sa.Interval, sa.PickleType)):
        type_ = type_.impl_instance
    return type_


def narrower(traits: Traits[object], key: str) -> Annotation:
    """The class's annotation of a column if it is narrower than the column type; else None.

    An annotation is narrower if it has literals, constraints (``Mapped[Annotated[str, Field(min_length=3)]]``) or
    `EmailStr`, or if it declares the type of the values in a JSON column.
    """
    type_ = traits.columns[key].type
    if converts(type_) or isinstance(type_, (sa.Enum, sa.ARRAY)):
        return None
    annotation: Annotation = annotation_of(traits.model, key)
    if not _is_known(annotation):
        return None
    if isinstance(type_, sa.JSON):
        return annotation
    origin: Annotation = get_origin(annotation)
    is_narrower = origin in (Annotated, Literal) or annotation is pydantic.EmailStr
    return annotation if is_narrower and _class_of(annotation) is _python_type(type_, declared=False) else None


def annotation_of(model: type, key: str) -> Annotation:
    """The type in the ``Mapped[…]`` annotation of an attribute, without None; None if there is no annotation."""
    for cls in model.__mro__:
        # The annotations of a base class are resolved with the names of that class's own module.
        raw = inspect.get_annotations(cls).get(key)
        if raw is not None:
            return _unmapped(_resolved(cls, key, raw))
    return None


def _resolved(cls: type, key: str, raw: Annotation) -> Annotation:
    holder = types.SimpleNamespace(__annotations__={key: raw})
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    with suppress(
        NameError, AttributeError, TypeError, SyntaxError
    ):  # a name that is local, or imported only for type checkers
        return typing.get_type_hints(holder, names, dict(vars(cls)), include_extras=True)[key]
    return None


def _unmapped(annotation: Annotation) -> Annotation:
    """``Mapped[Annotated[X, mapped_column(…)] | None]`` → ``X``."""
    origin: Annotation = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapped):
        return _unmapped(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _unmapped(members[0]) if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 - any number
    if origin is Annotated:
        plain, *notes = get_args(annotation)
        remaining = [note for note in notes if not type(note).__module__.startswith("sqlalchemy")]
        return Annotated[(plain, *remaining)] if remaining else plain
    return annotation


def _python_type(type_: ColumnType, *, declared: bool = True) -> type | None:
    """The ``python_type`` of a column type; with ``declared`` only if a class of the user's defines it."""
    if declared and not any(
        "python_type" in vars(cls) for cls in type(type_).__mro__ if not cls.__module__.startswith("sqlalchemy")
    ):
        return None
    with suppress(NotImplementedError):
        return type_.python_type
    return None


def _is_known(annotation: Annotation) -> bool:
    """Whether Pydantic supports a type, and the type is more specific than `Any`."""
    if annotation in (None, Any, object):
        return False
    try:
        TypeAdapter(annotation)
    except (pydantic.PydanticSchemaGenerationError, pydantic.PydanticUserError, TypeError, NameError):
        return False
    return True


def _class_of(annotation: Annotation) -> type | None:
    """The class of the values of a literal or constrained type; None if there are several."""
    if annotation is pydantic.EmailStr:
        return str
    origin: Annotation = get_origin(annotation)
    if origin is Annotated:
        return _class_of(get_args(annotation)[0])
    if origin is Literal:
        kinds = {type(value) for value in get_args(annotation)}
        return kinds.pop() if len(kinds) == 1 else None
    return annotation if isinstance(annotation, type) else None


def _is_sqlalchemys(cls: type) -> bool:
    return cls.__module__.startswith("sqlalchemy.")
