"""The replication lag, as seen from a primary and from a standby."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

# While a primary sends nothing, replay_lag keeps its last value, even if the standby has replayed everything. Then the
# lag is 0.
_STANDBYS = text(
    "SELECT application_name AS name, state, sync_state,"
    " pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8 AS lag_bytes,"
    " CASE WHEN replay_lsn >= pg_current_wal_lsn() THEN 0"
    " ELSE extract(epoch FROM replay_lag)::float8 END AS lag_s"
    " FROM pg_stat_replication ORDER BY lag_s DESC NULLS LAST, name LIMIT 20"
)

# The lag of a standby is the age of the transaction that it replayed last. If it has replayed all that it received, and
# is still connected to its primary, the lag is 0.
_STANDBY = text(
    "SELECT receiving, paused, pg_wal_lsn_diff(received, replayed)::float8 AS lag_bytes,"
    " CASE WHEN receiving AND received = replayed THEN 0"
    " ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END AS lag_s"
    " FROM (SELECT EXISTS (SELECT FROM pg_stat_wal_receiver) AS receiving, pg_is_wal_replay_paused() AS paused,"
    " pg_last_wal_receive_lsn() AS received, pg_last_wal_replay_lsn() AS replayed) AS now"
)


def replication(connection: Connection) -> dict[str, Any]:
    """The server's role, its largest replication lag ``lag_s`` in seconds, and details.

    A primary lists its connected standbys (the 20 with the largest lag). A standby reports whether it is receiving, and
    whether its replay is paused. A lag is None if it is unknown: if nothing was replayed yet, or if the database role
    of the connection is not a member of ``pg_monitor``.
    """
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        return {"role": "standby", **connection.execute(_STANDBY).mappings().one()}
    standbys = [dict(row) for row in connection.execute(_STANDBYS).mappings()]
    known = [standby["lag_s"] for standby in standbys if standby["lag_s"] is not None]
    return {"role": "primary", "lag_s": max(known, default=None), "standbys": standbys}
