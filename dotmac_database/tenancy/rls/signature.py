"""Signed settings: the policies accept a setting only with an HMAC, which raw SQL can't compute without the key.

The keys are in a table that only its owner can read. The policies call two SECURITY DEFINER functions, which read a
setting and return its value if the signature is right, else NULL or false. No extension is needed: an HMAC (RFC 2104)
is two calls of sha256(), which is built into PostgreSQL, each over a padded block of the key and the message.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import Text

from ...errors import ValidationError

Secret: TypeAlias = str | bytes | Sequence[str | bytes] | None
"""One secret or several: the first one signs and all are accepted, for rotation. None: settings are not signed."""

SETTING: Final = "dotmac.tenant_id"
"""The setting that names the tenant, for one transaction."""

ALL_TENANTS_SETTING: Final = "dotmac.all_tenants"
"""The setting that `unscoped` turns on for one transaction; policies made with ``all_tenants=False`` ignore it."""

ACTOR_SETTING: Final = "dotmac.actor"
"""The setting with the values of the actor that policies of rights read, as a JSON object, for one transaction."""

SCHEMA: Final = "dotmac"
_KEYS = f"{SCHEMA}.signing_keys"
_SIGNATURE_LENGTH = 64  # an HMAC-SHA256 in hexadecimal digits, at the start of a signed value
_SHORTEST_SECRET = 16  # in bytes
_BLOCK_SIZE = 64  # of SHA-256, in bytes
_CACHE_LIMIT = 4096


class Hidden(str):
    """A text that is hidden in logs and error messages, since they print the ``repr`` of parameters."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Signer:
    """Signs settings. Each ``secret`` (see `Secret`) must have at least 16 bytes; if not, raises `ValidationError`."""

    def __init__(self, secret: str | bytes | Sequence[str | bytes]) -> None:
        texts = (secret,) if isinstance(secret, (str, bytes)) else tuple(secret)
        secrets = [each.encode() if isinstance(each, str) else bytes(each) for each in texts]
        if not secrets or any(len(each) < _SHORTEST_SECRET for each in secrets):
            raise ValidationError(f"A secret must have at least {_SHORTEST_SECRET} bytes.", field="secret")
        # The keys are derived, so that the secret itself, which can have other uses, is not in the database.
        self._keys = [hmac.new(each, b"dotmac row-level security", sha256).digest() for each in secrets]
        self._signed: dict[tuple[str, str], Hidden] = {}

    def sign(self, setting: str, value: str) -> Hidden:
        """The value of a setting, preceded by its signature. The last few thousand results are cached."""
        cached = self._signed.get((setting, value))
        if cached is None:
            if len(self._signed) >= _CACHE_LIMIT:
                self._signed.clear()
            digest = hmac.new(self._keys[0], f"{setting}:{value}".encode(), sha256).hexdigest()
            cached = self._signed[setting, value] = Hidden(digest + value)
        return cached

    def install(self, connection: Connection) -> None:
        """Replace the keys in the database, so that it accepts only these secrets. Two statements; no commit."""
        connection.execute(text(f"DELETE FROM {_KEYS}"))  # noqa: S608 - a constant
        connection.execute(_INSERT, [_blocks(number, key) for number, key in enumerate(self._keys, 1)])

    def accepted(self, connection: Connection) -> bool:
        """Whether the database accepts this object's signatures. Four statements; the setting is restored."""
        before = connection.scalar(_READ)
        connection.execute(_WRITE, {"value": self.sign(SETTING, "dotmac verify")})
        value = connection.scalar(text(f"SELECT {SCHEMA}.tenant_id()"))
        connection.execute(_WRITE, {"value": Hidden(before or "")})
        return bool(value == "dotmac verify")


def _blocks(number: int, key: bytes) -> dict[str, object]:
    """The row of a key: RFC 2104's inner and outer block, in hexadecimal digits."""
    padded = key.ljust(_BLOCK_SIZE, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in padded).hex() for pad in (0x36, 0x5C))
    return {"number": number, "inner": Hidden(inner), "outer": Hidden(outer)}


_INSERT = text(
    f"INSERT INTO {_KEYS} (number, inner_block, outer_block) "  # noqa: S608 - a constant
    "VALUES (:number, decode(:inner, 'hex'), decode(:outer, 'hex'))"
).bindparams(bindparam("inner", type_=Text()), bindparam("outer", type_=Text()))
_READ = text(f"SELECT current_setting('{SETTING}', true)")
_WRITE = text(f"SELECT set_config('{SETTING}', :value, true)").bindparams(bindparam("value", type_=Text()))


def function_statements(settings: Sequence[str] = (SETTING, ALL_TENANTS_SETTING)) -> list[str]:
    """The DDL of the table of keys and of the functions that verify signatures. It contains no key.

    ``settings`` are those that the policies read.

    It can be run repeatedly. Run it as the owner of the tables, who then owns the functions too; the application's role
    must not own them.
    """
    return [
        f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
        (
            f"CREATE TABLE IF NOT EXISTS {_KEYS} "
            "(number integer PRIMARY KEY, inner_block bytea NOT NULL, outer_block bytea NOT NULL)"
        ),
        f"REVOKE ALL ON {_KEYS} FROM PUBLIC",
        *(_function(setting) for setting in settings),
        f"REVOKE CREATE ON SCHEMA {SCHEMA} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {', '.join(f'{setting}()' for setting in settings)} TO PUBLIC",
    ]


_RESULTS = {
    SETTING: ("text", "value", "NULL"),
    ALL_TENANTS_SETTING: ("boolean", "value = 'on'", "false"),
    # The values name their tenant, so that those that were signed for another tenant are not accepted.
    ACTOR_SETTING: (
        "jsonb",
        f"CASE WHEN value::jsonb ->> 'tenant' IS NOT DISTINCT FROM {SETTING}() THEN value::jsonb END",
        "NULL",
    ),
}
"""For each setting: the type of the function's result, the result, and the result without a right signature."""


def _function(setting: str) -> str:
    """The DDL of the function with the setting's name, which returns the setting's value if its signature is right.

    It compares hashes of the two signatures under the key, so that the duration of the comparison reveals nothing about
    the right signature. It is in PL/pgSQL, which caches the plan as long as the connection lives; a function in SQL
    would be planned again in each statement.
    """
    kind, value, otherwise = _RESULTS[setting]
    return f"""CREATE OR REPLACE FUNCTION {setting}() RETURNS {kind}
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  signed text := current_setting('{setting}', true);
  value text := substr(signed, {_SIGNATURE_LENGTH + 1});
BEGIN
  IF signed IS NULL OR length(signed) <= {_SIGNATURE_LENGTH} THEN
    RETURN {otherwise};
  END IF;
  PERFORM FROM {_KEYS} AS k WHERE
    sha256(k.outer_block || convert_to(left(signed, {_SIGNATURE_LENGTH}), 'UTF8'))
    = sha256(k.outer_block || convert_to(encode(sha256(k.outer_block || sha256(
      k.inner_block || convert_to('{setting}:' || value, 'UTF8'))), 'hex'), 'UTF8'));
  RETURN CASE WHEN FOUND THEN {value} ELSE {otherwise} END;
END
$function$"""


def actor_sql(key: str | None = None, *, signed: bool) -> str:
    """The SQL for the actor's value with this key (a literal), as a text; None: for all of them, as JSON.

    It is a subselect, which PostgreSQL evaluates once for each statement. NULL: no actor, or no such value.
    """
    actor = f"{ACTOR_SETTING}()" if signed else f"NULLIF(current_setting('{ACTOR_SETTING}', true), '')::jsonb"
    return f"(SELECT {actor})" if key is None else f"(SELECT {actor} ->> {key})"


def find_signature_holes(
    connection: Connection, signer: Signer, settings: Sequence[str] = (SETTING, ALL_TENANTS_SETTING)
) -> Iterator[tuple[str, str, str]]:
    """The findings about the keys and functions, for the connection's role: (object, risk, remedy). Six statements.

    ``settings`` are those that the policies read.
    """
    remedy = "run RowLevelSecurity.apply() as the tables' owner"
    functions = {row.name: row for row in connection.execute(text(_FUNCTIONS), {"schema": SCHEMA})}
    for setting in settings:
        row = functions.get(setting)
        if row is None:
            yield f"function {setting}()", "it does not exist, so no signature is checked", remedy
        elif row.source.strip() not in _function(setting) or not row.definer or row.path != _PATH:
            yield f"function {setting}()", "it is not the toolkit's function, and may accept a forged setting", remedy
        elif row.owned:
            yield (
                f"function {setting}()",
                "the application's role can replace it, because it can act as its owner or create in its schema",
                "give the functions and the tables an owner that the application's role is not a member of",
            )
    keys = connection.execute(text(_KEYS_TABLE), {"schema": SCHEMA}).one_or_none()
    if keys is None:
        yield f"table {_KEYS}", "it does not exist, so no signature can be checked", remedy
    elif keys.open:
        yield (
            f"table {_KEYS}",
            "the application's role can read or change the keys, so whoever sends SQL can sign for any tenant",
            f"REVOKE ALL ON {_KEYS} FROM the application's role, which must not be its owner",
        )
    if keys is not None and SETTING in functions and not signer.accepted(connection):
        risk = "it does not have the key of this secret, so no tenant gets any rows"
        yield f"table {_KEYS}", risk, "RowLevelSecurity.install_secret()"


_PATH = ["search_path=pg_catalog, pg_temp"]
_FUNCTIONS = """
SELECT n.nspname || '.' || p.proname AS name, p.prosrc AS source, p.prosecdef AS definer, p.proconfig AS path,
  pg_has_role(current_user, p.proowner, 'MEMBER') OR has_schema_privilege(n.oid, 'CREATE') AS owned
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = :schema AND p.pronargs = 0
"""
_KEYS_TABLE = """
SELECT has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
  OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE')
  OR pg_has_role(current_user, c.relowner, 'MEMBER') AS open
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = 'signing_keys'
"""
