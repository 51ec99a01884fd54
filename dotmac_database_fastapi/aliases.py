"""Types that several modules share. `Any` stands here for what Python's type system has no name for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel
from sqlalchemy import Column
from sqlalchemy import types as sa

from dotmac_database import AsyncRepository, CursorPaginationResult, OffsetResult, PaginationResult

Annotation: TypeAlias = Any
"""A type as Pydantic takes it: a class, or a form such as ``Annotated[int, Field(gt=0)] | None``. (`TypeForm` of PEP
747 will be the name of it.)"""

Schema: TypeAlias = type[BaseModel]
"""A Pydantic class that describes a row in requests or responses."""

ColumnType: TypeAlias = sa.TypeEngine[Any]
"""The type of a column. Python types of its values are known only at run time."""

AnyColumn: TypeAlias = Column[Any]
"""A column of a table."""

Repository: TypeAlias = AsyncRepository[Any, Any]
"""The repository of a request, of whichever class and session."""

Data: TypeAlias = BaseModel | Mapping[str, Any]
"""The data of a row, as a repository takes it: an object of a schema, or a dict that a hook of the user's returned."""

AnyPage: TypeAlias = PaginationResult[Any] | CursorPaginationResult[Any] | OffsetResult[Any]
"""The result of a paginated read, of whichever kind."""

Endpoint: TypeAlias = Callable[..., Any]
"""An endpoint or a dependency, as FastAPI calls it: by the names of its parameters."""

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object that is read and completed in place, such as a part of an OpenAPI document.

For values that are only passed on, `JsonValue` is the stricter type.
"""
