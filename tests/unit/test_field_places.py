"""Every public parameter that names a field takes an attribute, too, and every other one that is a text is listed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

import dotmac_database
import dotmac_database.testing
import dotmac_database_fastapi
from dotmac_database import (
    FullText,
    LivingUnique,
    MisuseError,
    TenantMixin,
    field,
    name_of,
    named_values,
    names_for,
    tenant_foreign_key,
    tenant_primary_key,
    tenant_unique,
    traits_of,
)
from dotmac_database_fastapi.entities import EntityKeywords
from dotmac_database_fastapi.options import CrudKeywords, ListKeywords, RouterKeywords

TAKES_ATTRIBUTES = re.compile(
    r"FieldName|ColumnName|\bName\b|NamesLike|FieldValues|RowData|(Filters|Sorts|Options|Relationships|Measures)Like"
)
"""The types of parameters that take attributes."""

FIELDS = set(
    re.findall(
        r"\w+",
        """
    active columns conflict_fields cursor_field data default_sort deleted facets field field_name fields filters
    group_by hidden include links match_fields measures name nested options read_only referred referred_tenant
    relationship relationships rows search sorts steps tenant values
    """,
    )
)
"""The parameters that name fields. A new one belongs into ``tests/integration/test_field_names.py``."""

TEXTS = set(
    re.findall(
        r"\w+",
        """
    accepted actor application_name attack codes cursor detail domain error extension fingerprint groups
    harmless_functions headers id key message methods name object ondelete operation option param path prefix reason
    request_id risk sql ssl text tenant_free tenant_id topic url user_id after before details engine_options ddl
    concurrently_ddl statement scans indexes next_cursor prev_cursor remedy table columns referred target
    values fields primary_key tenant is_deleted deleted_at created_at updated_at created_by updated_by version
    """,
    )
)
"""The parameters that are texts and name no field; in what the toolkit returns, they may be the key of one."""


def parameters() -> Iterator[tuple[str, str, str]]:
    """The name of each public function or class, and the names and the types of its parameters."""
    for module in (dotmac_database, dotmac_database.testing, dotmac_database_fastapi):
        for name in module.__all__:
            exported = getattr(module, name)
            if not str(getattr(exported, "__module__", "")).startswith("dotmac") or not callable(exported):
                continue
            callables = {name: exported}
            if inspect.isclass(exported):
                if issubclass(exported, BaseException):
                    continue
                for key, member in inspect.getmembers(exported, callable):
                    if not key.startswith("_") and str(getattr(member, "__module__", "")).startswith("dotmac"):
                        callables[f"{name}.{key}"] = member
            for place, function in callables.items():
                try:
                    signature = inspect.signature(function)
                except (TypeError, ValueError):
                    continue
                for parameter in signature.parameters.values():
                    if parameter.name.startswith("_"):
                        continue
                    yield place, parameter.name, str(parameter.annotation)
    for keywords in (EntityKeywords, ListKeywords, CrudKeywords):
        for key, annotation in inspect.get_annotations(keywords).items():
            if key not in RouterKeywords.__annotations__:
                yield keywords.__name__, key, str(annotation)


def test_each_parameter_is_known() -> None:
    taking = {name for _, name, annotation in parameters() if TAKES_ATTRIBUTES.search(annotation)}
    assert taking == FIELDS
    unknown = {
        (place, name, annotation)
        for place, name, annotation in parameters()
        if re.search(r"\bstr\b", annotation) and not TAKES_ATTRIBUTES.search(annotation) and name not in TEXTS
    }
    assert not unknown, "take FieldName for the names of fields, or list the parameter in TEXTS"


def test_what_names_fields_in_one_place_names_them_in_all() -> None:
    """The exceptions are objects that the toolkit returns, and methods for extensions."""
    texts = {
        (place, name)
        for place, name, annotation in parameters()
        if name in FIELDS and re.search(r"\bstr\b", annotation) and not TAKES_ATTRIBUTES.search(annotation)
    }
    returned = (
        "IndexAdvice",
        "LooseKey",
        "TenantReference",
        "Traits",
        "Instrumentation",
        "CircuitChange",
        "IdempotencyRecord",
    )
    others = {(place, name) for place, name in texts if not place.startswith(returned) and name != "name"}
    assert others == set()


class Base(DeclarativeBase):
    metadata = MetaData()


class Parent(TenantMixin, Base):
    __tablename__ = "place_parents"
    __table_args__ = (tenant_primary_key("key"),)
    id: Mapped[int] = mapped_column("key")
    email: Mapped[str]


class Coded:
    code: Mapped[str] = mapped_column()


def declared(*, by_attributes: bool) -> type[Any]:
    class Model(DeclarativeBase):
        metadata = MetaData()

    class Child(TenantMixin, Coded, Model):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column()
        email: Mapped[str] = mapped_column("mail")
        parent_id: Mapped[int | None] = mapped_column()
        is_deleted: Mapped[bool] = mapped_column(default=False)
        if by_attributes:
            __table_args__ = (
                tenant_primary_key(id),
                tenant_unique(email, name="one"),
                tenant_foreign_key(parent_id, Parent.id),
                LivingUnique(email, deleted=is_deleted),
                FullText(email),
            )
        else:
            __table_args__ = (
                tenant_primary_key("id"),
                tenant_unique("mail", name="one"),
                tenant_foreign_key("parent_id", "place_parents.key"),
                LivingUnique("mail", deleted="is_deleted"),
                FullText("mail"),
            )

    return Child


def ddl(table: Table) -> list[str]:
    dialect = postgresql.dialect()
    Parent.__table__.to_metadata(table.metadata)
    indexes = sorted(str(CreateIndex(each).compile(dialect=dialect)) for each in table.indexes)
    return [str(CreateTable(table).compile(dialect=dialect)), *indexes]


def test_a_table_is_the_same_by_texts_and_by_columns() -> None:
    made = ddl(declared(by_attributes=True).__table__)
    assert made == ddl(declared(by_attributes=False).__table__)
    assert "REFERENCES place_parents (tenant_id, key)" in made[0]
    assert len(made) == 4


ARGUMENTS: dict[str, Any] = {
    "tenant_primary_key": tenant_primary_key,
    "tenant_unique": tenant_unique,
    "tenant_foreign_key": lambda column: tenant_foreign_key(column, "place_parents.key"),
    "LivingUnique": LivingUnique,
    "LivingUnique.tenant": lambda column: LivingUnique("name", tenant=column),
    "LivingUnique.deleted": lambda column: LivingUnique("name", deleted=column),
    "FullText": FullText,
}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize(
    "foreign", [Parent.email, Parent.__table__.c.email, Coded.code], ids=["attribute", "column", "mixin"]
)
def test_the_column_of_another_class_is_refused(argument: str, foreign: Any) -> None:
    declared(by_attributes=True)  # so that a class has the mixin

    class Model(DeclarativeBase):
        metadata = MetaData()

    with pytest.raises(MisuseError, match=r"is a column of (place_parents|another class), not of others"):

        class Other(TenantMixin, Coded, Model):
            __tablename__ = "others"
            __table_args__ = (ARGUMENTS[argument](foreign),)
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]
            is_deleted: Mapped[bool] = mapped_column(default=False)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_field_of_sqlmodel_has_no_name_in_its_body(argument: str) -> None:
    class Model(SQLModel, registry=registry()):
        metadata = MetaData()

    with pytest.raises(MisuseError, match="a field has no name yet: give the name"):

        class Other(Model, table=True):
            id: int | None = Field(default=None, primary_key=True)
            name: str = Field()
            tenant_id: str
            is_deleted: bool = False
            __table_args__ = (ARGUMENTS[argument](name),)


def test_a_foreign_key_that_sets_null_needs_names() -> None:
    key = tenant_foreign_key(Parent.email, Parent.id, ondelete="SET NULL", tenant=Parent.tenant_id)
    assert key.ondelete == "SET NULL (email)"
    with pytest.raises(MisuseError, match="name the columns as texts"):
        tenant_foreign_key(mapped_column(), Parent.id, ondelete="SET NULL")


def test_the_roles_of_columns() -> None:
    class Model(DeclarativeBase):
        metadata = MetaData()

    class Owned:
        org: Mapped[str] = mapped_column("organisation")
        __tenant_column__ = org

    class Document(Owned, Model):
        __tablename__ = "documents"
        id: Mapped[int] = mapped_column(primary_key=True)
        revision: Mapped[int] = mapped_column("rev")
        __version_column__ = revision

    class Letter(Document):
        __version_column__ = Document.revision

    class Foreign(Model):
        __tablename__ = "foreigners"
        id: Mapped[int] = mapped_column(primary_key=True)
        __tenant_column__ = Document.org

    for model in (Document, Letter):
        assert (traits_of(model).tenant, traits_of(model).version) == ("org", "revision")
    with pytest.raises(MisuseError, match=r"Foreign.__tenant_column__ names Document.org, which is not a column of"):
        traits_of(Foreign)
    Foreign.__tenant_column__ = 5
    with pytest.raises(MisuseError, match="takes the name of a column, or a column of the class, not int"):
        traits_of(Foreign)


def test_names() -> None:
    child = declared(by_attributes=True)
    assert name_of(Coded.code) == field(Coded.code) == "code"
    assert names_for(child, [Coded.code, child.email, "id"]) == ["code", "email", "id"]
    with pytest.raises(MisuseError, match=r"Coded\.code is an attribute of Coded, not of Parent"):
        names_for(Parent, Coded.code)
    with pytest.raises(MisuseError, match="has no name yet"):
        name_of(mapped_column())
    texts = {"code": 1}
    assert named_values(child, texts) is texts
    assert named_values(child, {Coded.code: 1, "id": 2}) == {"code": 1, "id": 2}
    with pytest.raises(MisuseError, match="named twice"):
        named_values(child, {Coded.code: 1, "code": 2})
