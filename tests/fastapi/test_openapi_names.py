"""Components are named after their classes, and what code of the user's own may raise is documented."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import SoftDeleteMixin, TenantMixin
from dotmac_database_fastapi import (
    OPERATIONS,
    DatabasePlugin,
    crud_router,
    register_exception_handlers,
    tenant_from_header,
)
from tests.fastapi.conftest import inlined


class Base(DeclarativeBase):
    """The tables of this module."""


class Author(TenantMixin, Base):
    __tablename__ = "named_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    main_books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "named_books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey(Author.id))
    author: Mapped[Author | None] = relationship(back_populates="main_books")
    others: Mapped[list[Author]] = relationship(secondary="named_author_books")


class AuthorBook(TenantMixin, Base):
    __tablename__ = "named_author_books"

    author_id: Mapped[int] = mapped_column(sa.ForeignKey(Author.id), primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey(Book.id), primary_key=True)


class Numbered(Base):
    __tablename__ = "named_numbers"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int]


class Refusing:
    """A hook that refuses each new row."""

    def before_create(self, data: Any, repository: Any) -> Any:
        raise HTTPException(402, "Nothing is free.")


async def paid(x_paid: Annotated[str, Header()] = "") -> None:
    if not x_paid:
        raise HTTPException(402, "Nothing is free.")


def app_of(*routers: Any, dependencies: Any = (), **options: Any) -> FastAPI:
    plugin = DatabasePlugin("sqlite+aiosqlite://", tenant=tenant_from_header(), **options)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    for router in routers:
        app.include_router(router, dependencies=list(dependencies))
    return app


def schemas_of(app: FastAPI) -> dict[str, Any]:
    schemas: dict[str, Any] = app.openapi()["components"]["schemas"]
    return schemas


ALL = (*OPERATIONS, "bulk_create", "bulk_update", "link")
EVERY = {
    "listBooks", "createBook", "getBook", "updateBook", "deleteBook", "restoreBook", "bulkCreateBooks",
    "bulkUpdateBooks", "linkBookOther", "unlinkBookOther",
}  # fmt: skip
CHANGING = {"updateBook", "bulkUpdateBooks", "linkBookOther", "unlinkBookOther"}
CASES: list[tuple[str, dict[str, Any], list[Any], set[str]]] = [
    ("nothing", {}, [], set()),
    ("all that is the toolkit's own", {"fields": ("id",), "include": ("author",), "idempotency": True}, [], set()),
    ("one permission", {"permissions": {"delete": Depends(paid)}}, [], {"deleteBook"}),
    ("a permission that others need", {"permissions": {"update": Depends(paid)}}, [], CHANGING),
    ("a permission of all", {"permissions": Depends(paid)}, [], EVERY),
    ("a hook", {"hooks": Refusing()}, [], {"createBook", "bulkCreateBooks"}),
    ("a dependency of the router", {}, [Depends(paid)], EVERY),
]


@pytest.mark.parametrize(
    ("options", "dependencies", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_what_code_of_the_users_own_raises_is_documented(
    options: dict[str, Any], dependencies: list[Any], expected: set[str]
) -> None:
    router = crud_router(Book, "/books", operations=ALL, links=("others",), **options)
    paths = inlined(app_of(router, dependencies=dependencies).openapi())["paths"]
    operations = [each for path in paths.values() for each in path.values()]
    assert {each["operationId"] for each in operations} == EVERY
    others = {
        each["operationId"]: each["responses"]["default"] for each in operations if "default" in each["responses"]
    }
    assert others.keys() == expected
    for response in others.values():
        assert response["content"].keys() == {"application/problem+json"}


BOOKS = {"fields": ("id", "title"), "include": ("author",)}
AUTHORS = {"fields": ("id", "name"), "include": ("main_books",)}


def test_what_can_be_selected_is_named_after_the_class() -> None:
    """So a router more does not rename the components of another class."""
    both = schemas_of(app_of(crud_router(Book, "/books", **BOOKS), crud_router(Author, "/authors", **AUTHORS)))
    alone = schemas_of(app_of(crud_router(Author, "/authors", **AUTHORS)))
    allowed = {name: schema["enum"] for name, schema in both.items() if name.endswith("Value")}
    assert allowed == {
        "BookFieldsValue": ["id", "title"],
        "BookIncludeValue": ["author"],
        "AuthorFieldsValue": ["id", "name"],
        "AuthorIncludeValue": ["main_books"],
        "TotalValue": ["exact", "bounded", "none"],
    }
    for name in ("AuthorFieldsValue", "AuthorIncludeValue"):
        assert alone[name] == both[name]


def test_children_have_other_names_than_a_class_that_links() -> None:
    routers = crud_router(Author, "/authors", nested=("main_books",)), crud_router(AuthorBook, "/links")
    schemas = schemas_of(app_of(*routers))
    assert {name for name in schemas if name.startswith(("Author", "Book"))} == {
        "AuthorBookCreate", "AuthorBookPage", "AuthorBookRead", "AuthorBookUpdate",
        "AuthorCreateWithMainBooks", "AuthorReadWithMainBooks", "AuthorRead", "AuthorPage", "AuthorUpdate",
        "BookCreateInAuthor", "BookRead",
    }  # fmt: skip
    assert "author_id" not in schemas["BookCreateInAuthor"]["properties"]
    assert {"author_id", "book_id"} <= schemas["AuthorBookCreate"]["properties"].keys()


def test_lists_in_responses_have_no_titles_of_fastapis() -> None:
    document = app_of(crud_router(Book, "/books", operations=ALL, links=("others",))).openapi()
    response = document["paths"]["/books/bulk"]["patch"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert response == {"type": "array", "items": {"$ref": "#/components/schemas/BookRead"}}


def test_an_actor_that_a_header_names_is_a_text_and_always_needed() -> None:
    router = crud_router(Numbered, "/numbers")
    app = app_of(router, actor=tenant_from_header("X-Actor"))
    parameters = inlined(app.openapi())["paths"]["/numbers"]["get"]["parameters"]
    named = {each["name"]: (each["schema"]["type"], each["required"]) for each in parameters if each["in"] == "header"}
    assert named == {"X-Tenant-ID": ("integer", True), "X-Actor": ("string", True)}
