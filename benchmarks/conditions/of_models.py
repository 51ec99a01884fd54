"""The conditions on asyncpg that differ in the mapped class."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..peers import sqlmodel_user
from .models import FILL_RELATED, FILL_WIDE, WIDE_VALUES, Loaded, Related, Validated, Wide
from .on_postgresql import ways_on
from .site import OWN_ROWS, Site, async_engine
from .ways import Subject, Ways


@asynccontextmanager
async def _ways(site: Site, subject: Subject) -> AsyncIterator[Ways]:
    """Both ways with the class of ``subject``."""
    site.tidied(subject.model)
    async with async_engine(site.url("asyncpg")) as engine:
        yield ways_on(engine, subject)


@asynccontextmanager
async def with_relationships(site: Site) -> AsyncIterator[Ways]:
    """The class has relationships, which stay unloaded."""
    site.filled(Related, more=FILL_RELATED)
    async with _ways(site, Subject(Related, OWN_ROWS, {"organisation_id": 1})) as ways:
        yield ways


@asynccontextmanager
async def with_validator(site: Site) -> AsyncIterator[Ways]:
    """The class has a validator on a column."""
    async with _ways(site, Subject(Validated, site.rows)) as ways:
        yield ways


@asynccontextmanager
async def with_load_listener(site: Site) -> AsyncIterator[Ways]:
    """A function of the app's is called for each loaded object."""
    async with _ways(site, Subject(Loaded, site.rows)) as ways:
        yield ways


@asynccontextmanager
async def with_sqlmodel(site: Site) -> AsyncIterator[Ways]:
    """The class is a SQLModel."""
    async with _ways(site, Subject(sqlmodel_user(), site.rows)) as ways:
        yield ways


@asynccontextmanager
async def with_many_columns(site: Site) -> AsyncIterator[Ways]:
    """The class has 40 columns."""
    site.filled(Wide, more=FILL_WIDE)
    async with _ways(site, Subject(Wide, OWN_ROWS, WIDE_VALUES)) as ways:
        yield ways
