"""What the application answers, besides what the plugin generates."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import TypeAdapter

from dotmac_database import AsyncRepository, AsyncTenantRepository, QueryOptions, SortField
from dotmac_database_fastapi import crud_router, get_repository, list_router

from .models import Airport, Country, Inspection, Outcome, User

Countries = Annotated[AsyncRepository[Country], Depends(get_repository(Country))]
Airports = Annotated[AsyncTenantRepository[Airport], Depends(get_repository(Airport))]
Staff = Annotated[AsyncTenantRepository[User], Depends(get_repository(User))]
Inspections = Annotated[AsyncTenantRepository[Inspection], Depends(get_repository(Inspection))]

_DOTS: TypeAdapter[list[tuple[str, float, float]]] = TypeAdapter(list[tuple[str, float, float]])

router = APIRouter(prefix="/api")


@router.get("/countries")
async def countries(repository: Countries) -> list[dict[str, Any]]:
    """All countries that have airports; they belong to no tenant."""
    found = await repository.list(QueryOptions(sorts=[SortField("code")]))
    return [{"code": country.code, "airports": country.airports} for country in found]


@router.get("/map")
async def airports_map(repository: Airports) -> Response:
    """Each airport's code, latitude and longitude, for the map."""
    dots = [(airport.icao, airport.latitude, airport.longitude) async for airport in repository.stream(batch_size=5000)]
    return Response(_DOTS.dump_json(dots), media_type="application/json")


@router.get("/overview")
async def overview(airports: Airports, staff: Staff, inspections: Inspections) -> dict[str, Any]:
    """The numbers of one country."""
    return {
        "airports": await airports.count(),
        "staff": await staff.count(),
        "inspections": await inspections.get_tenant_stats(),
        "open": len(await inspections.list_by_field("outcome", Outcome.OPEN)),
    }


router.include_router(
    list_router(Airport, "/airports", default_sort="name", search=["name", "city"], tags=["airports"])
)
router.include_router(crud_router(User, "/users", default_sort="name", tags=["staff"]))
router.include_router(crud_router(Inspection, "/inspections", default_sort="-created_at", tags=["inspections"]))
