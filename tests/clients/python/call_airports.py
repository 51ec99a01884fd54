"""Calls every operation of the example app by the generated client."""

from datetime import date

from airports import Client
from airports.api.airports import (
    airport_api_airports_icao_get,
    airport_map_api_airports_map_get,
    list_airports,
    regions_api_airports_regions_get,
)
from airports.api.countries import list_countries, summary_api_summary_get
from airports.api.health import get_database_health, is_alive, is_database_ready
from airports.api.how_it_is_done import read_statements_api_statements_token_get
from airports.api.inspections import (
    create_inspection,
    delete_inspection,
    get_inspection,
    list_inspections,
    restore_inspection,
    update_inspection,
)
from airports.api.users import create_user, delete_user, get_user, list_users, update_user
from airports.models import (
    AirportRead,
    DatabaseHealth,
    DatabaseHealthStatus,
    InspectionCreate,
    InspectionRead,
    InspectionUpdate,
    ListAirportsSortItem,
    MapPoints,
    Problem,
    ProblemCode,
    ProcessHealth,
    Role,
    Status,
    Summary,
    Topic,
    UserCreate,
    UserRead,
    UserUpdate,
)
from checks import PATIENT, RECORDED, Answer, address, empty, ok, report

client = Client(address(), httpx_args=RECORDED, timeout=PATIENT)
COUNTRY = "IS"


def refused(answer: Answer, status: int, code: ProblemCode) -> None:
    """Check an answer that must be a problem with this status and code."""
    problem = ok(answer, Problem, status)
    assert (problem.status, problem.code) == (status, code), problem


def airports() -> AirportRead:
    """Countries belong to nobody, airports to a country. Returns one of them."""
    countries = list_countries.sync(client=client, name_ilike="icel")
    assert countries is not None
    assert not isinstance(countries, Problem)
    assert [each.code for each in countries.items] == [COUNTRY]
    refused(list_airports.sync_detailed(client=client, x_tenant_id="!"), 400, ProblemCode.TENANT_REQUIRED)
    summary = ok(summary_api_summary_get.sync_detailed(client=client, x_tenant_id=COUNTRY), Summary)
    answer = list_airports.sync_detailed(
        client=client, x_tenant_id=COUNTRY, per_page=2, sort=[ListAirportsSortItem.ICAO]
    )
    page = answer.parsed
    assert page is not None
    assert not isinstance(page, Problem)
    assert page.total == summary.airports
    assert 'rel="next"' in answer.headers["link"]
    log = read_statements_api_statements_token_get.sync_detailed(answer.headers["x-statements"], client=client)
    assert b"SELECT" in log.content
    first = page.items[0]
    points = airport_map_api_airports_map_get.sync_detailed(client=client, x_tenant_id=COUNTRY, icao_in=[first.icao])
    assert [point[0] for point in ok(points, MapPoints).points] == [first.icao]
    assert len(ok(regions_api_airports_regions_get.sync_detailed(client=client, x_tenant_id=COUNTRY), list)) > 0
    one = airport_api_airports_icao_get.sync_detailed(first.icao, client=client, x_tenant_id=COUNTRY)
    assert ok(one, AirportRead).name == first.name
    none = airport_api_airports_icao_get.sync_detailed("ZZZZ", client=client, x_tenant_id=COUNTRY)
    refused(none, 404, ProblemCode.NOT_FOUND)
    return first


def users() -> UserRead:
    """Users have an enum, and an address of their own. Returns one of them."""
    body = UserCreate(name="Jon", email="jon@example.org", role=Role.LEAD)
    created = create_user.sync_detailed(client=client, x_tenant_id=COUNTRY, x_user="test", body=body)
    jon = ok(created, UserRead, 201)
    assert (jon.role, jon.created_by) == (Role.LEAD, "test")
    assert created.headers["location"] == f"/api/users/{jon.id}"
    again = create_user.sync_detailed(client=client, x_tenant_id=COUNTRY, body=body)
    refused(again, 409, ProblemCode.DUPLICATE)
    assert ok(get_user.sync_detailed(jon.id, client=client, x_tenant_id=COUNTRY), UserRead).email == body.email
    changed = update_user.sync_detailed(jon.id, client=client, x_tenant_id=COUNTRY, body=UserUpdate(role=Role.ANALYST))
    assert ok(changed, UserRead).role is Role.ANALYST
    page = list_users.sync(client=client, x_tenant_id=COUNTRY, role_in=[Role.ANALYST], limit=1)
    assert page is not None
    assert not isinstance(page, Problem)
    assert page.next_cursor
    refused(get_user.sync_detailed(jon.id, client=client, x_tenant_id="NO"), 404, ProblemCode.NOT_FOUND)
    spare = UserCreate(name="Eve", email="eve@example.org")
    eve = ok(create_user.sync_detailed(client=client, x_tenant_id=COUNTRY, body=spare), UserRead, 201)
    empty(delete_user.sync_detailed(eve.id, client=client, x_tenant_id=COUNTRY))
    return jon


def inspections(airport: AirportRead, inspector: UserRead) -> None:
    """Inspections have a version, and refer to an airport and a user."""
    body = InspectionCreate(
        airport_icao=airport.icao, inspector_id=inspector.id, topic=Topic.RUNWAY, due_on=date(2026, 5, 1)
    )
    made = create_inspection.sync_detailed(client=client, x_tenant_id=COUNTRY, body=body)
    inspection = ok(made, InspectionRead, 201)
    assert (inspection.inspector.name, inspection.status) == ("Jon", Status.OPEN)
    absent = InspectionCreate(airport_icao="ZZZZ", inspector_id=inspector.id, topic=Topic.RUNWAY, due_on=body.due_on)
    refused(
        create_inspection.sync_detailed(client=client, x_tenant_id=COUNTRY, body=absent), 409, ProblemCode.CONSTRAINT
    )
    tag = made.headers["etag"]
    closed = update_inspection.sync_detailed(
        inspection.id,
        client=client,
        x_tenant_id=COUNTRY,
        if_match=tag,
        body=InspectionUpdate(status=Status.CLOSED),
    )
    assert ok(closed, InspectionRead).version == inspection.version + 1
    late = update_inspection.sync_detailed(
        inspection.id, client=client, x_tenant_id=COUNTRY, if_match=tag, body=InspectionUpdate(note="late")
    )
    refused(late, 412, ProblemCode.STALE)
    page = list_inspections.sync(client=client, x_tenant_id=COUNTRY, status=Status.CLOSED, due_on=body.due_on)
    assert page is not None
    assert not isinstance(page, Problem)
    assert [each.id for each in page.items] == [inspection.id]
    empty(delete_inspection.sync_detailed(inspection.id, client=client, x_tenant_id=COUNTRY))
    gone = get_inspection.sync_detailed(inspection.id, client=client, x_tenant_id=COUNTRY)
    refused(gone, 404, ProblemCode.NOT_FOUND)
    ok(restore_inspection.sync_detailed(inspection.id, client=client, x_tenant_id=COUNTRY), InspectionRead)


inspections(airports(), users())
assert ok(get_database_health.sync_detailed(client=client), DatabaseHealth).status is DatabaseHealthStatus.HEALTHY
assert ok(is_alive.sync_detailed(client=client), ProcessHealth).status == "alive"
assert ok(is_database_ready.sync_detailed(client=client), DatabaseHealth).status is DatabaseHealthStatus.HEALTHY
report()
