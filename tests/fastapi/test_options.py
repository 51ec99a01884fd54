"""The options of the generated routers, as values and as keyword arguments."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any, get_type_hints

import pytest
from fastapi import FastAPI

from dotmac_database import MAX_PAGE_SIZE, SortField, ValidationError, field
from dotmac_database_fastapi import (
    CrudOptions,
    ListOptions,
    TenantDirectory,
    crud_router,
    filter_query,
    get_entity,
    list_router,
    options_query,
    sort_query,
)
from dotmac_database_fastapi.options import CrudKeywords, ListKeywords, RouterKeywords

from ..models import Country, Post, Tag, User
from .conftest import Api, inlined

ROUTERS: list[tuple[Any, type[ListOptions], Any]] = [
    (list_router, ListOptions, ListKeywords),
    (crud_router, CrudOptions, CrudKeywords),
]


def document_of(router: Any) -> Any:
    app = FastAPI()
    app.include_router(router)
    return inlined(app.openapi())


@pytest.mark.parametrize(("function", "options", "keywords"), ROUTERS)
def test_each_field_is_a_keyword_argument(function: Any, options: type[ListOptions], keywords: Any) -> None:
    of_router = RouterKeywords.__annotations__
    types = {name: kind for name, kind in get_type_hints(keywords).items() if name not in of_router}
    positional = {"create_schema", "update_schema", "read_schema"} & set(function.__annotations__)
    assert types == {name: kind for name, kind in get_type_hints(options).items() if name not in positional}


@pytest.mark.parametrize(("function", "options", "keywords"), ROUTERS)
def test_help_shows_the_options_with_their_defaults(function: Any, options: type[ListOptions], keywords: Any) -> None:
    shown = inspect.signature(function).parameters
    assert {each.name: each.default for each in fields(options)}.items() <= {
        name: each.default for name, each in shown.items()
    }.items()
    assert shown["router"].kind is inspect.Parameter.VAR_KEYWORD


def test_an_options_object_gives_the_same_router_as_its_keywords() -> None:
    given: dict[str, Any] = {"filters": ["name"], "sorts": ["score"], "search": ["name"], "page_size": 7}
    assert document_of(list_router(User, "/users", options=ListOptions(**given), tags=["x"])) == document_of(
        list_router(User, "/users", tags=["x"], **given)
    )
    given |= {"idempotency": True, "max_page_size": 9}
    assert document_of(crud_router(User, "/users", options=CrudOptions(**given))) == document_of(
        crud_router(User, "/users", **given)
    )


def test_a_field_may_be_named_by_its_attribute() -> None:
    names: dict[str, Any] = {"filters": ["name", "score"], "sorts": ["score"], "search": ["name"]}
    attributes: dict[str, Any] = {"filters": [User.name, "score"], "sorts": [User.score], "search": [User.name]}
    assert document_of(list_router(User, "/users", **names)) == document_of(list_router(User, "/users", **attributes))
    assert ListOptions(**names) == ListOptions(**attributes)
    for make in (filter_query, sort_query, options_query):
        shown = [inspect.signature(make(User, each)).parameters.keys() for each in ("score", User.score)]
        assert shown[0] == shown[1]
        with pytest.raises(ValidationError, match=r"Post\.title is an attribute of Post, not of User"):
            make(User, Post.title)
    shapes: dict[str, Any] = {"operations": ["create", "link", "list"]}
    for option in ("links", "nested"):
        texts, attributes = ({**shapes, "links": ["posts"], option: [name]} for name in ("posts", User.posts))
        assert document_of(crud_router(User, "/u", **texts)) == document_of(crud_router(User, "/u", **attributes))
        with pytest.raises(ValidationError, match=r"Tag\.posts is an attribute of Tag, not of User"):
            crud_router(User, **{**texts, option: [Tag.posts]})
    more: dict[str, Any] = {"fields": ["id", "name"], "include": ["posts"], "facets": ["status"]}
    given = {"fields": [User.id, User.name], "include": [User.posts], "facets": [field(User.status)]}
    assert document_of(list_router(User, "/users", **more)) == document_of(list_router(User, "/users", **given))
    for order in (SortField(User.name, "desc"), [SortField(User.name, "desc"), "id"], "-name"):
        list_router(User, default_sort=order)
    with pytest.raises(ValidationError, match=r"Post\.title is an attribute of Post, not of User"):
        list_router(User, default_sort=[Post.title])
    with pytest.raises(ValidationError, match=r"Tag\.posts is an attribute of Tag, not of User"):
        get_entity(User, relationships=[Tag.posts])
    assert get_entity(User, relationships=[User.posts]) is get_entity(User, relationships=["posts"])
    directory = TenantDirectory(Country, active=Country.name, name=Country.code)
    assert isinstance(directory, TenantDirectory)
    with pytest.raises(ValidationError, match=r"Post\.title is an attribute of Post, not of Country"):
        TenantDirectory(Country, active=Post.title)
    for option in ("filters", "sorts", "search", "fields", "include", "facets"):
        with pytest.raises(ValidationError, match=r"Post\.title is an attribute of Post, not of User"):
            list_router(User, **{option: [Post.title]})  # type: ignore[misc]  # a keyword from a loop


def test_a_keyword_replaces_the_field_of_the_options() -> None:
    options = ListOptions(filters=["name"], max_page_size=9)
    assert document_of(list_router(User, "/users", options=options, max_page_size=8)) == document_of(
        list_router(User, "/users", options=replace(options, max_page_size=8))
    )


def test_a_keyword_of_neither_the_options_nor_a_router_is_refused() -> None:
    unknown: dict[str, Any] = {"fliters": ["name"]}
    with pytest.raises(TypeError, match="fliters"):
        list_router(User, **unknown)


def test_options_are_values() -> None:
    assert ListOptions(filters=["name"], totals=["exact"]) == ListOptions(filters=("name",), totals={"exact"})
    assert len({ListOptions(sorts=["name"]), ListOptions(sorts=("name",))}) == 1
    with pytest.raises(FrozenInstanceError):
        ListOptions().page_size = 3  # type: ignore[misc]  # that is the test
    assert options_query(User, "name", totals=["exact", "none"]) is options_query(
        User, "name", totals=["none", "exact"]
    )


def test_a_router_allows_a_tenth_of_what_code_can_read_in_one_page() -> None:
    assert ListOptions().max_page_size == 100
    assert MAX_PAGE_SIZE == 1000


def test_the_fields_of_a_list_are_checked_when_it_is_made() -> None:
    for options in (ListOptions(filters=["nmae"]), ListOptions(sorts=["nmae"]), ListOptions(default_sort="-nmae")):
        with pytest.raises(ValidationError, match="did you mean 'name'"):
            list_router(User, options=options)


def test_a_list_of_an_options_object_answers(app: FastAPI, api: Api) -> None:
    app.include_router(list_router(User, "/few", options=ListOptions(max_page_size=2, default_sort="-name")))
    assert api.get("/few?per_page=2", tenant="a").status_code == 200
    assert api.get("/few?per_page=3", tenant="a").status_code == 422
