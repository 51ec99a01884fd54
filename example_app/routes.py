"""The API under ``/api``: routes that are generated from the models, and hand-written routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import AsyncTenantRepository, QueryFilter
from dotmac_database_fastapi import crud_router, filter_query, get_repository, get_session, list_router

from .models import Airport, Country, Inspection, Status, User
from .schemas import AirportRead, InspectionCreate, InspectionRead, InspectionUpdate, MapPoints, Summary

AIRPORT_FILTERS = (
    "icao",
    "iata",
    "name",
    "city",
    "region",
    "elevation_ft",
    "timezone",
    "keywords",
    "inspections.status",
)
AIRPORT_SORTS = ("name", "icao", "city", "region", "elevation_ft", "latitude", "longitude")

Session = Annotated[AsyncSession, Depends(get_session)]
Airports = Annotated[AsyncTenantRepository[Airport], Depends(get_repository(Airport))]
Users = Annotated[AsyncTenantRepository[User], Depends(get_repository(User))]
Inspections = Annotated[AsyncTenantRepository[Inspection], Depends(get_repository(Inspection))]
AirportFilters = Annotated[list[QueryFilter], Depends(filter_query(Airport, *AIRPORT_FILTERS))]
Icao = Annotated[str, Path(min_length=1, max_length=4)]

_MAP: TypeAdapter[dict[str, list[tuple[str, float, float]]]] = TypeAdapter(dict[str, list[tuple[str, float, float]]])


def api_router() -> APIRouter:
    """The router of ``/api``."""
    router = APIRouter(prefix="/api")
    for part in (by_hand, *_generated()):
        router.include_router(part)
    return router


def _generated() -> tuple[APIRouter, ...]:
    return (
        list_router(
            Country,
            prefix="/countries",
            default_sort="name",
            page_size=250,
            max_page_size=500,
            tags=["countries"],
        ),
        list_router(
            Airport,
            prefix="/airports",
            read_schema=AirportRead,
            filters=AIRPORT_FILTERS,
            sorts=AIRPORT_SORTS,
            default_sort="name",
            facets=("region",),
            page_size=50,
            tags=["airports"],
        ),
        crud_router(User, prefix="/users", default_sort="name", tags=["users"]),
        crud_router(
            Inspection,
            prefix="/inspections",
            create_schema=InspectionCreate,
            update_schema=InspectionUpdate,
            read_schema=InspectionRead,
            default_sort="-due_on",
            tags=["inspections"],
        ),
    )


by_hand = APIRouter()


@by_hand.get("/summary", tags=["countries"])
async def summary(airports: Airports, users: Users, inspections: Inspections) -> Summary:
    """The numbers of airports, staff and open inspections in the request's country."""
    return Summary(
        airports=await airports.count(),
        staff=await users.count(),
        open_inspections=await inspections.count([QueryFilter("status", value=Status.OPEN)]),
    )


@by_hand.get("/airports/map", response_model=MapPoints, tags=["airports"])
async def airport_map(airports: Airports, filters: AirportFilters) -> Response:
    """The positions of all matching airports. The filters are those of the list."""
    # To read three columns of 12,000 rows is much faster than to make 12,000 objects.
    places = airports.values("icao", "latitude", "longitude").stream({"filters": filters}, batch_size=5000)
    points = [(place["icao"], place["latitude"], place["longitude"]) async for place in places]
    return Response(_MAP.dump_json({"points": points}), media_type="application/json")


@by_hand.get("/airports/regions", tags=["airports"])
async def regions(session: Session) -> list[str]:
    """The regions of the country's airports. The session confines this hand-written statement to the country."""
    statement = select(Airport.region).where(Airport.region.is_not(None)).distinct().order_by(Airport.region)
    return [region for region in await session.scalars(statement) if region is not None]


@by_hand.get("/airports/{icao}", response_model=AirportRead, tags=["airports"])
async def airport(icao: Icao, airports: Airports) -> Airport:
    """One airport of the country."""
    return await airports.get_by_id_or_raise(icao.upper())
