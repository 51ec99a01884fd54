"""JSON Merge Patch (RFC 7396) of JSON columns: on SQLite, on PostgreSQL, and there with row-level security."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, create_model
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field as SqlField
from sqlmodel import SQLModel

from dotmac_database import Database, SoftDeleteMixin, TenantMixin, VersionMixin, traits_of
from dotmac_database.sqlmodel import TenantMixin as SqlTenantMixin
from dotmac_database_fastapi import DatabasePlugin, tenant_from_header
from dotmac_database_fastapi.merge_patch import merge_patch_of, merged
from tests.conftest import counted
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import RINGS, Tables, World, world_of
from tests.fastapi.shared_routers import crud_router


class Base(DeclarativeBase):
    """The tables of this module."""


class Theme(BaseModel):
    """A value that is valid only as a whole."""

    model_config = ConfigDict(extra="forbid")

    colour: str
    size: int = 1
    font: str | None = None


class Stored(TypeDecorator[Theme]):
    """A theme, which is an object in Python."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value.model_dump()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else Theme(**value)


class Page(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "merged_pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    plain: Mapped[Any] = mapped_column(sa.JSON, nullable=True)
    binary: Mapped[Any] = mapped_column(sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True)
    late: Mapped[Any] = deferred(mapped_column(sa.JSON, nullable=True))
    theme: Mapped[Theme | None] = mapped_column(sa.JSON)
    stored: Mapped[Theme | None] = mapped_column(Stored)


class Look(SQLModel):
    colour: str
    size: int = 1
    parts: dict[str, int] = {}


class Site(SqlTenantMixin, table=True):
    __tablename__ = "merged_sites"

    id: int | None = SqlField(default=None, primary_key=True)
    look: Look = SqlField(sa_type=sa.JSON)
    words: dict[str, Any] = SqlField(default_factory=dict, sa_type=sa.JSON)


class Renamed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    plain: Any = Field(default=None, alias="settings")


class Hook:
    """Notes the data that it gets, and adds a member to them."""

    seen: list[Any]

    def __init__(self) -> None:
        self.seen = []

    def before_update(self, key: Any, data: Any, repository: Any) -> Any:
        changes = data.model_dump(exclude_unset=True)
        self.seen.append(changes)
        return {**changes, "plain": {**changes["plain"], "hook": True}}


TABLES: Any = [Page.__table__, Site.__table__]
HOOK = Hook()
CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SELECT set_config")
MERGE, REPLACE = "application/merge-patch+json", "application/json"


def nothing(_database: Database) -> None:
    """No rows: each test makes its own."""


@pytest.fixture(scope="module", params=RINGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    metadata = sa.MetaData()
    for table in TABLES:
        table.to_metadata(metadata)
    with world_of(request, tmp_path_factory.mktemp("merge"), Tables(metadata, nothing)) as world:
        yield world


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Api]:
    with world.api() as (app, api):
        app.include_router(crud_router(Page, "/pages"))
        app.include_router(crud_router(Site, "/sites"))
        app.include_router(crud_router(Page, "/hooked", hooks=HOOK))
        app.include_router(crud_router(Page, "/renamed", update_schema=Renamed))
        app.include_router(crud_router(Page, "/put", update_method="PUT", operations=["update"]))
        app.include_router(crud_router(Page, "/bulk", operations=["bulk_update"]))
        yield api


@pytest.fixture
def api(world: World, served: Api) -> Api:
    world.refill()
    return served


def made(api: Api, path: str = "/pages", tenant: str = "a", **values: Any) -> str:
    answer = api.post(path, tenant=tenant, json=values)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def patch(api: Api, path: str, values: Any, media_type: str = MERGE, tenant: str = "a", **headers: str) -> Any:
    return api.patch(path, tenant=tenant, json=values, headers={"Content-Type": media_type, **headers})


# https://www.rfc-editor.org/rfc/rfc7396#appendix-A: the original, the patch, the result.
EXAMPLES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
# https://www.rfc-editor.org/rfc/rfc7396#section-3
DOCUMENT = (
    {
        "title": "Goodbye!",
        "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"],
        "content": "This will be unchanged",
    },
    {"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": None}, "tags": ["example"]},
    {
        "title": "Hello!",
        "author": {"givenName": "John"},
        "tags": ["example"],
        "content": "This will be unchanged",
        "phoneNumber": "+01-123-456-7890",
    },
)


@pytest.mark.parametrize(("target", "change", "result"), [*EXAMPLES, DOCUMENT])
def test_the_examples_of_the_standard(target: Any, change: Any, result: Any) -> None:
    before = repr(target), repr(change)
    assert merged(target, change) == result
    assert (repr(target), repr(change)) == before


def test_the_examples_of_the_standard_in_columns(api: Api) -> None:
    for target, change, result in [*EXAMPLES, DOCUMENT, (None, {"a": 1, "b": None}, {"a": 1})]:
        columns = ("plain", "binary", "late")
        path = made(api, name="n", **dict.fromkeys(columns, target))
        answer = patch(api, path, dict.fromkeys(columns, change))
        assert answer.status_code == 200, answer.text
        row = api.get(path, tenant="a").json()
        assert [row[column] for column in columns] == [result] * 3, (target, change)
        assert (row["name"], row["version"]) == ("n", 2)


@pytest.mark.parametrize(
    ("alias", "names"),
    [
        (None, {"plain"}),
        ("settings", {"settings"}),
        (AliasChoices("settings", "config"), {"settings", "config"}),
        (AliasChoices("settings", AliasPath("all", "settings")), {"settings"}),
        (AliasPath("all", "settings"), set()),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_the_names_of_a_column(alias: Any, names: set[str], by_name: bool) -> None:
    """A value at a path is replaced: the object around it belongs to no column."""
    field: Any = (Any, Field(default=None, validation_alias=alias))
    schema = create_model("Change", __config__=ConfigDict(populate_by_name=by_name), plain=field, name=(str, ""))
    found = merge_patch_of(traits_of(Page), schema)
    wanted = names | ({"plain"} if by_name else set())
    assert (set() if found is None else set(found.columns)) == wanted


@pytest.mark.parametrize(
    "media_type", [MERGE, "Application/Merge-Patch+JSON; charset=utf-8", REPLACE, "application/vnd.api+json"]
)
def test_only_the_media_type_merges(api: Api, media_type: str) -> None:
    path = made(api, plain={"a": 1, "b": {"c": 1}})
    answer = patch(api, path, {"plain": {"b": {"d": None}}}, media_type)
    expected = {"a": 1, "b": {"c": 1}} if media_type.lower().startswith(MERGE) else {"b": {"d": None}}
    assert answer.json()["plain"] == expected


def test_a_put_and_many_rows_replace(api: Api) -> None:
    path = made(api, plain={"a": 1})
    key = path.rpartition("/")[2]
    headers = {"Content-Type": MERGE}
    answer = api.request("PUT", f"/put/{key}", tenant="a", json={"plain": {"b": 1}}, headers=headers)
    assert answer.json()["plain"] == {"b": 1}
    many = api.patch("/bulk/bulk", tenant="a", json=[{"id": int(key), "plain": {"c": 1}}], headers=headers)
    assert many.json()[0]["plain"] == {"c": 1}


@pytest.mark.parametrize(
    ("media_type", "values", "statements"),
    [
        (REPLACE, {"plain": {"a": 1}}, 1),
        (MERGE, {"name": "x"}, 1),
        (MERGE, {"plain": [1]}, 1),
        (MERGE, {"plain": None}, 1),
        (MERGE, {"plain": {"a": 1}}, 2),
        (MERGE, {"plain": {"a": 1}, "binary": {"a": 1}, "late": {"a": 1}, "theme": {"size": 2}}, 2),
    ],
)
def test_only_a_merge_reads_the_row(
    world: World, api: Api, media_type: str, values: dict[str, Any], statements: int
) -> None:
    path = made(api, name="n", theme={"colour": "red"})
    with counted(api.app.state.plugin.database.async_engine.sync_engine) as sent:
        assert patch(api, path, values, media_type).status_code == 200
    ours = [each for each in sent if not each.startswith(CONTROL)]
    # SQLite locks the database by a statement of its own.
    locks = statements == 2 and world.owner.engine.dialect.name == "sqlite"
    assert len(ours) == statements + locks, ours


class TestValidatedColumns:
    """The schema of a JSON column validates the merged value, and not the part that is sent."""

    def test_a_part_of_a_pydantic_value(self, api: Api) -> None:
        path = made(api, theme={"colour": "red", "size": 3, "font": "serif"})
        answer = patch(api, path, {"theme": {"size": 4, "font": None}})
        assert answer.json()["theme"] == {"colour": "red", "size": 4, "font": None}

    def test_a_part_of_an_object_of_the_users_column_type(self, api: Api) -> None:
        path = made(api, stored={"colour": "red", "font": "serif"})
        answer = patch(api, path, {"stored": {"size": 4, "font": None}})
        assert answer.status_code == 200, answer.text
        assert api.get(path, tenant="a").json()["stored"] == {"colour": "red", "size": 4, "font": None}
        assert patch(api, path, {"stored": {"colour": None}}).status_code == 422

    def test_a_part_of_a_nested_sqlmodel(self, api: Api) -> None:
        path = made(api, "/sites", look={"colour": "red", "parts": {"x": 1, "y": 2}}, words={"a": {"b": 1}})
        answer = patch(api, path, {"look": {"parts": {"x": None, "z": 3}}, "words": {"a": {"c": 2}}})
        assert answer.status_code == 200, answer.text
        row = api.get(path, tenant="a").json()
        assert row["look"] == {"colour": "red", "size": 1, "parts": {"y": 2, "z": 3}}
        assert row["words"] == {"a": {"b": 1, "c": 2}}

    @pytest.mark.parametrize(
        ("media_type", "values", "place"),
        [
            (MERGE, {"theme": {"colour": None}}, ["body", "theme", "colour"]),
            (MERGE, {"theme": {"size": "large"}}, ["body", "theme", "size"]),
            (MERGE, {"theme": {"weight": 1}}, ["body", "theme", "weight"]),
            (MERGE, {"theme": {"size": 1}, "colour": "red"}, ["body", "colour"]),
            (MERGE, {"name": 1}, ["body", "name"]),
            (MERGE, {"name": 1, "theme": {"size": 1}}, ["body", "name"]),
            (MERGE, [], ["body"]),
            (REPLACE, {"theme": {"size": 1}}, ["body", "theme", "colour"]),
            (REPLACE, {"name": 1}, ["body", "name"]),
        ],
    )
    def test_what_does_not_fit_is_refused_by_name(
        self, api: Api, media_type: str, values: Any, place: list[str]
    ) -> None:
        path = made(api, theme={"colour": "red"})
        answer = patch(api, path, values, media_type)
        assert answer.status_code == 422
        assert [each["loc"] for each in answer.json()["errors"]] == [place]
        assert api.get(path, tenant="a").json()["version"] == 1

    @pytest.mark.parametrize(
        ("values", "meant"), [({"nmae": "x"}, "name"), ({"theme": {"colour": "red", "sze": 1}}, "size")]
    )
    def test_a_misspelt_member_names_the_field_that_was_meant(self, api: Api, values: Any, meant: str) -> None:
        path = made(api, theme={"colour": "red"})
        for media_type in (MERGE, REPLACE):
            [fault] = patch(api, path, values, media_type).json()["errors"]
            assert fault["msg"].endswith(f"did you mean {meant!r}?")

    def test_a_refusal_contains_no_stored_value(self, world: World) -> None:
        """Without the toolkit's handlers, FastAPI's own shows the input of each error."""
        plugin = DatabasePlugin(world.url, rls=world.rls, tenant=tenant_from_header("X-Tenant-ID"))
        app = FastAPI(lifespan=plugin.lifespan)
        app.include_router(crud_router(Page, "/pages"))
        with asyncio.Runner() as runner:
            bare = Api(app, runner)
            path = made(bare, theme={"colour": "red", "font": "hidden"})
            answer = patch(bare, path, {"theme": {"colour": None}})
            runner.run(plugin.database.dispose_async())
        assert answer.status_code == 422
        assert "hidden" not in answer.text

    def test_a_name_of_the_users_schema(self, api: Api) -> None:
        path = made(api, plain={"a": 1})
        patch(api, path.replace("pages", "renamed"), {"settings": {"b": 2}})
        assert api.get(path, tenant="a").json()["plain"] == {"a": 1, "b": 2}

    @pytest.mark.parametrize("depth", [70, 5_000])
    def test_what_is_nested_too_deep(self, api: Api, depth: int) -> None:
        path = made(api, plain={"a": 1})
        body = '{"plain": ' + '{"a": ' * depth + "1" + "}" * depth + "}"
        headers = {"Content-Type": MERGE}
        assert api.patch(path, tenant="a", content=body, headers=headers).status_code == 422
        assert api.get(path, tenant="a").json()["plain"] == {"a": 1}


def test_a_hook_gets_the_merged_value(api: Api) -> None:
    HOOK.seen.clear()
    path = made(api, plain={"a": 1})
    answer = patch(api, path.replace("pages", "hooked"), {"plain": {"b": 2}})
    assert HOOK.seen == [{"plain": {"a": 1, "b": 2}}]
    assert answer.json()["plain"] == {"a": 1, "b": 2, "hook": True}


@pytest.mark.parametrize(
    ("if_match", "status"), [('"1"', 200), ('"7"', 412), ('"7", "1"', 200), ('"7", "8"', 412), ("*", 200)]
)
def test_a_version_that_is_required(api: Api, if_match: str, status: int) -> None:
    path = made(api, plain={"a": 1})
    answer = patch(api, path, {"plain": {"b": 2}}, **{"If-Match": if_match})
    assert answer.status_code == status, answer.text
    merged_value = {"a": 1, "b": 2} if status == 200 else {"a": 1}
    assert api.get(path, tenant="a").json()["plain"] == merged_value


def test_another_tenants_row_and_a_deleted_one_are_unknown(api: Api) -> None:
    own, foreign, deleted = (made(api, tenant=tenant, plain={"a": tenant}) for tenant in ("a", "b", "a"))
    api.delete(deleted, tenant="a")
    answers = [patch(api, path, {"plain": {"b": 2}}) for path in (own, foreign, deleted, "/pages/999")]
    assert [each.status_code for each in answers] == [200, 404, 404, 404]
    assert answers[1].json() == answers[2].json() == answers[3].json()
    assert api.get(foreign, tenant="b").json()["plain"] == {"a": "b"}
    assert api.get(own, tenant="a").json()["plain"] == {"a": "a", "b": 2}


def test_patches_at_once_lose_nothing(api: Api) -> None:
    path = made(api, plain={})

    async def burst() -> list[Any]:
        headers = {"Content-Type": MERGE}
        bodies = [{"plain": {str(turn): {"by": turn}}} for turn in range(12)]
        return await asyncio.gather(
            *(api.arequest("PATCH", path, tenant="a", json=body, headers=headers) for body in bodies)
        )

    assert [answer.status_code for answer in api.run(burst())] == [200] * 12
    row = api.get(path, tenant="a").json()
    assert row["plain"] == {str(turn): {"by": turn} for turn in range(12)}
    assert row["version"] == 13
