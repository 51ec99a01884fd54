"""Writes that announce settings themselves, since BEGIN, the settings and COMMIT would cost more than the write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Dialect, Insert, Text, Update, and_, bindparam, func, insert, literal_column, select, true

from ..models.traits import Traits
from ..sqlalchemy_internals import values_of
from .compiling import DriverStatement, compile_own

M = TypeVar("M")


def with_settings(
    to_send: DriverStatement, names: tuple[str, ...], dialect: Dialect, traits: Traits[M]
) -> DriverStatement | None:
    """A write that sets settings before it writes, so that it needs no transaction around it for them.

    Their values are the parameters `setting_parameters`. The settings end with the statement, if the database commits
    it by itself. None: the driver can't send it.

    The calls are in a condition that has nothing to do with a row. PostgreSQL decides it before it looks for rows, and
    so before the triggers for rows, and AFTER triggers, run: its plan is a "Result" with a "One-Time Filter".
    """
    if names not in to_send.setting:
        statement = to_send.statement()
        announcing = None if statement is None else _setting(statement, names, traits)
        sent = None if announcing is None else compile_own(announcing, dialect, traits, ())
        # A `DriverStatement` refers weakly to its statement.
        to_send.setting[names] = None if announcing is None or sent is None else (announcing, sent)
    cached = to_send.setting[names]
    return None if cached is None else cached[1]


def setting_parameters(values: Iterable[str]) -> dict[str, object]:
    """The parameters of `with_settings`."""
    return {f"dotmac_setting_{place}": value for place, value in enumerate(values)}


def _setting(statement: object, names: Sequence[str], traits: Traits[M]) -> Insert | Update | None:
    calls = [
        func.pg_catalog.set_config(literal_column(f"'{name}'"), bindparam(parameter, type_=Text()), true())
        for name, parameter in zip(names, setting_parameters(names), strict=True)
    ]
    settings = and_(*(select(each).scalar_subquery().is_not(None) for each in calls))
    if isinstance(statement, Update):
        return statement.where(settings)
    values = values_of(statement) if isinstance(statement, Insert) else {}
    if not values:
        return None
    row = select(*values.values()).where(settings)  # type: ignore[call-overload]  # they are bound parameters
    inserted = insert(traits.tables[0]).from_select(list(values), row, include_defaults=False)
    return inserted.returning(*traits.columns.values())
