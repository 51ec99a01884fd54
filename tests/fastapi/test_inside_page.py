"""The app of `docs/inside-a-tenant.md`: the requests of each person, the history, the webhook, and the job."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Request
from sqlalchemy import MetaData, make_url
from sqlmodel import Session, SQLModel, select

from dotmac_database import RowLevelSecurity, StatementBudgetWarning, create_database
from dotmac_database_fastapi import JobHeadersError
from tests.confined import ROLE, confined_database
from tests.fastapi.conftest import Api, serving

PAGE = Path(__file__).parent.parent.parent / "docs" / "inside-a-tenant.md"
[BLOCK] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
ENVIRONMENT = {"JOB_KEY": "a key of more than sixteen bytes", "WEBHOOK_KEY": "known to the receiver"}
PEOPLE = {"ann": "member", "bob": "member", "eve": "auditor"}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "rls"])
def page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The module of the page's block, made for one database, with its tables and its people.

    With "rls", the policies are also those of PostgreSQL, as the page's last section says.
    """
    block, kind = BLOCK, request.param
    if kind == "rls":
        block = block.replace("plugin = ", "rls = RowLevelSecurity(SQLModel.metadata, policies=[claims])\nplugin = ")
        block = block.replace("policies=[claims],", "policies=[claims], rls=rls,").replace(
            "deliver)", "deliver, rls=rls)"
        )
        block = f"from dotmac_database import RowLevelSecurity\n{block}"
    server = "" if kind == "sqlite" else request.getfixturevalue("postgres_server")
    name = f"inside_{kind}_{os.getpid()}"
    url = make_url(server).set(database=name) if server else f"sqlite:///{tmp_path_factory.mktemp('inside')}/page.db"
    module: Any = ModuleType(f"docs_inside_a_tenant_{kind}")
    confined = make_url(url).set(username=ROLE, password="dotmac") if kind == "rls" else make_url(url)
    for key, value in {**ENVIRONMENT, "DATABASE_URL": confined.render_as_string(hide_password=False)}.items():
        patch.setenv(key, value)
    patch.setitem(sys.modules, module.__name__, module)
    patch.setattr(SQLModel, "metadata", MetaData())  # without the tables of other tests
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), module.__dict__)
    tables = {"person", "claim", "claim_history", "payment", "dotmac_outbox"}
    assert SQLModel.metadata.tables.keys() == tables
    with ExitStack() as stack:
        if server:
            policies = module.rls if kind == "rls" else RowLevelSecurity(SQLModel.metadata)
            stack.enter_context(confined_database(server, name, policies))
        module.owner = create_database(url)
        SQLModel.metadata.create_all(module.owner.engine)
        with Session(module.owner.engine) as session:
            session.add_all(module.Person(id=name, role=role) for name, role in PEOPLE.items())
            session.commit()
        yield module
        module.plugin.database.instrumentation.remove()
        module.owner.dispose()


@pytest.fixture(scope="module")
def webhooks(patch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    """The signatures and the bodies that a receiver has got."""
    received: list[tuple[str, bytes]] = []
    receiver = FastAPI()

    @receiver.post("/hook")
    async def hook(request: Request) -> None:
        received.append((request.headers["Signature"], await request.body()))

    with serving(receiver) as url:
        patch.setenv("WEBHOOK_URL", f"{url}/hook")
        yield received


@pytest.fixture(scope="module")
def api(page: Any, webhooks: object) -> Iterator[Api]:
    """The running app, with its relay and its worker."""
    with asyncio.Runner() as runner:
        lifespan = page.app.router.lifespan_context(page.app)
        runner.run(lifespan.__aenter__())
        yield Api(page.app, runner)
        runner.run(lifespan.__aexit__(None, None, None))


class As:
    """A person of a tenant who sends requests: `ann("POST", "/claims", 201, json={…})`."""

    def __init__(self, api: Api, name: str, tenant: str = "acme") -> None:
        self._api, self._name, self._tenant = api, name, tenant

    def __call__(self, method: str, path: str, status: int, **options: Any) -> Any:
        answer = self._api.request(method, path, tenant=self._tenant, headers={"X-User": self._name}, **options)
        assert answer.status_code == status, (self._name, method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None


@pytest.fixture
def ann(api: Api) -> As:
    return As(api, "ann")


@pytest.fixture
def bob(api: Api) -> As:
    return As(api, "bob")


@pytest.fixture
def eve(api: Api) -> As:
    return As(api, "eve")


def until(api: Api, met: Callable[[], object]) -> None:
    """Let the app's relay and its worker work until they have done something."""

    async def wait() -> None:
        async with asyncio.timeout(90):
            while not met():  # noqa: ASYNC110 - the receiver is in another thread
                await asyncio.sleep(0.01)

    api.run(wait())


def rows(page: Any, model: str) -> list[Any]:
    with Session(page.owner.engine) as session:
        return list(session.exec(select(getattr(page, model))))


def test_each_person_can_do_what_the_policy_says(ann: As, bob: As, eve: As, api: Api) -> None:
    path = f"/claims/{ann('POST', '/claims', 201, json={'title': 'Train', 'cents': 4200})['id']}"
    strangers = As(api, "ann", "globex"), As(api, "eve", "globex")
    for reader, status in ((ann, 200), (bob, 404), (eve, 200), *((each, 404) for each in strangers)):
        reader("GET", path, status)
        reader("GET", f"{path}/history", status)
        assert reader("GET", "/claims", 200)["total"] == (status == 200)
    for writer, status in ((bob, 404), (eve, 403), *((each, 404) for each in strangers), (ann, 200)):
        writer("PATCH", path, status, json={"cents": 4300})
    for each, status in ((ann, 403), (bob, 404), (eve, 403), *((each, 404) for each in strangers)):
        each("DELETE", path, status)
    assert bob("POST", "/claims", 201, json={"title": "Taxi", "cents": 1})["created_by"] == "bob"
    eve("POST", "/claims", 403, json={"title": "Lunch", "cents": 1})
    ann("POST", "/claims", 403, json={"title": "Lunch", "cents": 1, "submitted": True})
    ann("POST", "/claims", 422, json={"title": "Lunch", "cents": 1, "created_by": "bob"})
    As(api, "mallory")("GET", "/claims", 401)


def test_a_submitted_claim_is_recorded_told_and_paid(page: Any, api: Api, webhooks: list[tuple[str, bytes]]) -> None:
    for tenant in ("acme", "globex"):  # rows that look alike
        who = As(api, "ann", tenant)
        claim = who("POST", "/claims", 201, json={"title": "Hotel", "cents": 9900})["id"]
        path, told, paid = f"/claims/{claim}", len(webhooks), len(rows(page, "Payment"))
        who("PATCH", path, 200, json={"cents": 9800})
        who("PATCH", path, 200, json={"submitted": True})
        until(api, lambda told=told, paid=paid: len(webhooks) > told and len(rows(page, "Payment")) > paid)

        for name in PEOPLE:
            As(api, name, tenant)("GET", path, 200)
            As(api, name, tenant)("PATCH", path, 403, json={"submitted": True})
            As(api, name, tenant)("DELETE", path, 403)
        As(api, "eve", "acme" if tenant == "globex" else "globex")("GET", path, 404)

        history = As(api, "eve", tenant)("GET", f"{path}/history", 200)
        assert [(each["operation"], each["actor"]) for each in history] == [
            *(("create", "ann"), ("update", "ann"), ("update", "ann"))
        ]
        assert history[0]["after"]["cents"] == 9900
        assert [(each["before"]["cents"], each["after"]["cents"]) for each in history[1:2]] == [(9900, 9800)]
        assert history[2]["after"]["submitted"] is True

        ((signature, body),) = webhooks[told:]
        content = json.loads(body)
        assert UUID(content.pop("id")).version == 7
        payload = {"id": claim, "cents": 9800}
        assert content == {"topic": "claims.submitted", "tenant": tenant, "payload": payload}
        assert signature == hmac.digest(ENVIRONMENT["WEBHOOK_KEY"].encode(), body, "sha256").hex()

        (payment,) = rows(page, "Payment")[paid:]
        assert (payment.tenant_id, payment.created_by, payment.claim_id) == (tenant, "ann", claim)


def test_a_job_of_others_pays_nothing(page: Any, api: Api) -> None:
    """Altered headers are refused before a connection is used, and so are those of a person who is gone."""

    async def resume(headers: dict[str, str]) -> None:
        async with page.plugin.resume(headers):
            pytest.fail("The job was begun.")

    async def headers(actor: object) -> dict[str, str]:
        async with page.plugin.session("acme", actor) as session:
            return page.carry(session)  # type: ignore[no-any-return]

    carried = api.run(headers(page.Person(id="ann")))
    gone = api.run(headers(page.Person(id="carl")))
    for wrong in ({}, {**carried, "dotmac-job-tenant": gone["dotmac-job-signature"]}, gone):
        with pytest.raises(JobHeadersError):
            api.run(resume(wrong))


def test_metrics_and_the_budget(page: Any, api: Api, ann: As) -> None:
    @page.app.get("/one-by-one")
    async def one_by_one(claims: Any = Depends(page.get_repository(page.Claim))) -> list[bool]:
        return [await claims.exists(number) for number in range(30)]

    with pytest.warns(StatementBudgetWarning, match="GET /one-by-one: 21 statements, and the budget allows 20"):
        ann("GET", "/one-by-one", 200)
    metrics = api.get("/metrics/").text
    labels = 'database="default",model="Claim",operation="exists",outcome="ok"'
    counted = re.search(rf"statement_duration_seconds_count{{{labels}}} (\d+)", metrics)
    assert counted
    assert int(counted[1]) % 30 == 0  # the registry is that of the process
    assert "acme" not in metrics


def test_the_page_is_about_eighty_lines() -> None:
    assert len([line for line in BLOCK.splitlines() if line.strip()]) <= 82
    assert max(map(len, BLOCK.splitlines())) <= 120
