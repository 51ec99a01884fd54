"""The statuses of successful writes, and the body of a DELETE's response."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypeAlias

from pydantic import BaseModel, JsonValue, TypeAdapter
from pydantic_core import to_json

from dotmac_database import ValidationError

from .aliases import JsonObject

WriteOperation: TypeAlias = Literal["create", "update", "delete", "restore"]
"""An operation that changes one row."""

_STATUSES: dict[str, int] = {"create": 201, "update": 200, "delete": 204, "restore": 200}

BODILESS = frozenset({204, 205})
"""The statuses whose responses have no body (RFC 9110, sections 15.3.5 and 15.3.6)."""


class DeleteBody(Enum):
    """A body of a DELETE's response that depends on the row."""

    ROW = "row"
    """The row as it was before it was deleted, in the read schema. It is read first, by one statement."""


DeleteBodyLike: TypeAlias = BaseModel | JsonValue | DeleteBody
"""What a router may respond with to a DELETE: the row, or always the same object. None: nothing."""


def check_codes(codes: Mapping[WriteOperation, int] | None) -> None:
    """Raise `ValidationError` for an operation whose status can't be chosen, and for a status that is no success."""
    for operation, status in (codes or {}).items():
        if operation not in _STATUSES:
            known = ", ".join(_STATUSES)
            _refuse(f"{operation!r} is no operation whose status can be chosen. There are: {known}.")
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status < 300:
            _refuse(f"{operation} needs a status of success, from 200 to 299, and not {status!r}.")


def statuses_of(codes: Mapping[WriteOperation, int] | None, delete_body: DeleteBodyLike) -> dict[str, int]:
    """The status of each write's response: those of a router's ``status_codes``, or the usual ones.

    With a ``delete_body``, the usual status of a DELETE is 200.
    """
    usual = _STATUSES if delete_body is None else {**_STATUSES, "delete": 200}
    return {**usual, **{str(operation): status for operation, status in (codes or {}).items()}}


def check_delete(status: int, body: DeleteBodyLike) -> None:
    """Raise `ValidationError` if the status and the body of a DELETE's response contradict each other."""
    if body is not None and status in BODILESS:
        _refuse(f"a response with the status {status} has no body; leave out delete_body, or choose 200.")
    if body is None and status not in BODILESS:
        _refuse(f"a response with the status {status} needs a body; give one as delete_body, or choose 204.")


def _refuse(message: str) -> None:
    raise ValidationError(f"status_codes: {message}", field="status_codes")


def delete_json(body: DeleteBodyLike) -> bytes:
    """The JSON of a body that is the same for all rows."""
    return to_json(body, by_alias=True)


def documented_delete(body: DeleteBodyLike, row_schema: type) -> JsonObject:
    """The body of a DELETE's response for OpenAPI, by its type."""
    if isinstance(body, DeleteBody):
        return {"model": row_schema}
    if isinstance(body, BaseModel):
        return {"model": type(body)}
    schema = TypeAdapter(type(body)).json_schema()
    return {"content": {"application/json": {"schema": schema, "example": body}}}
