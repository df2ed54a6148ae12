"""The log of what a served model decided: the questions of a later claim.

A decision is on disk before the answer leaves. Many processes may write to one log. In SQLite it is a file, in
PostgreSQL the tables `wmplug_decisions` and `wmplug_log`. A log belongs to one watermark.

A commitment takes all decisions that were logged so far, in their order. What came later belongs to the next.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from wmplug.errors import InputError, ServingError
from wmplug.extras import need
from wmplug.keys import merkle
from wmplug.watermark.carriers import Inputs, digest, rounded
from wmplug.watermark.decided import Decided, leaf_of
from wmplug.watermark.watermark import Watermark

with need("serving"):
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

SCHEMA = 1
_TABLES = sa.MetaData()
_LOG = sa.Table(
    "wmplug_log",
    _TABLES,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_DECISIONS = sa.Table(
    "wmplug_decisions",
    _TABLES,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("seconds", sa.Double, nullable=False),  # since 1970, UTC
    sa.Column("customer", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("low", sa.Integer, nullable=False),
    sa.Column("high", sa.Integer, nullable=False),
    sa.Column("input", sa.LargeBinary, nullable=True),
    sa.Column("part", sa.Integer, nullable=True, index=True),  # of the commitment that took it; none until then
)
_IN_ORDER = (_DECISIONS.c.part, _DECISIONS.c.number)


class Log:
    """The decisions of one watermark.

    Args:
        place: a file (SQLite), or the URL of a database, such as postgresql+psycopg://user@host/name.
        mark: the watermark.
        keep: "inputs", or "digests" where queries must not be kept; you then bring the inputs to verify.

    Raises:
        InputError: keep is neither, or the log belongs to another watermark.
        ServingError: the database cannot be opened, or a newer wmplug wrote the log.
    """

    def __init__(self, place: str | Path, mark: Watermark, *, keep: str = "inputs") -> None:
        if keep not in ("inputs", "digests"):
            raise InputError(f"keep={keep!r}: choose 'inputs' or 'digests'")
        text = str(place)
        self._keep, self._own = keep, mark.triggers.plan.inputs
        with _told("be opened"):
            self._engine = sa.create_engine(
                text if "://" in text else f"sqlite:///{text}", pool_pre_ping=True, hide_parameters=True
            )
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _durable)
            self._prepare({"schema": str(SCHEMA), "watermark": mark.id})

    def _prepare(self, facts: dict[str, str]) -> None:
        for last in (False, True):
            try:
                _TABLES.create_all(self._engine)
                with self._engine.begin() as connection:
                    found = {name: value for name, value in connection.execute(sa.select(_LOG))}
                    if not found:
                        connection.execute(sa.insert(_LOG), [{"name": n, "value": v} for n, v in facts.items()])
                break
            except SQLAlchemyError:  # another process made them just now
                if last:
                    raise
        for name, value in facts.items():
            if found.get(name, value) == value:
                continue
            if name == "watermark":
                raise InputError(f"the log belongs to watermark {found[name]}, not to {value}: give each a log")
            raise ServingError(f"the log has schema {found[name]}, this wmplug knows {SCHEMA}: update wmplug")

    def add(self, decided: Decided, model: str = "") -> None:
        """Write decisions; they are on disk when this returns.

        Args:
            decided: the queries.
            model: name or digest of the model that was unsure about them.

        Raises:
            ServingError: the database cannot be written.
        """
        now = time.time()
        pairs = np.asarray(decided.pairs).tolist()
        rows = [
            {
                "seconds": now,
                "customer": who,
                "model": model,
                "sha256": sha256,
                "low": low,
                "high": high,
                "input": _bytes(one) if self._keep == "inputs" else None,
            }
            for one, sha256, (low, high), who in zip(
                decided.inputs, decided.digests, pairs, decided.customers, strict=True
            )
        ]
        with _told("be written"), self._engine.begin() as connection:
            connection.execute(sa.insert(_DECISIONS), rows)

    def commit(self) -> tuple[str, int]:
        """Take all decisions so far into a commitment.

        Returns:
            The Merkle root, in hex, over all decisions that were ever taken, and their number.

        Raises:
            ServingError: the database cannot be written.
        """
        with _told("be written"), self._engine.begin() as connection:
            # This row is locked, so one commitment ends before another begins.
            connection.execute(sa.update(_LOG).where(_LOG.c.name == "schema").values(value=_LOG.c.value))
            last = connection.scalar(sa.select(sa.func.max(_DECISIONS.c.part))) or 0
            connection.execute(sa.update(_DECISIONS).where(_DECISIONS.c.part.is_(None)).values(part=last + 1))
        c = _DECISIONS.c
        asked = sa.select(c.sha256, c.low, c.high, c.customer).where(c.part <= last + 1).order_by(*_IN_ORDER)
        # Those who serve write on meanwhile: to hash a large log takes longer than they wait.
        with _told("be read"), self._engine.connect() as connection:
            leaves = [leaf_of(*row) for row in _once(connection.execute(asked))]
        if not leaves:
            raise ServingError("the log holds no decision, so there is nothing to commit to: serve first")
        return merkle.root(leaves).hex(), len(leaves)

    def decided(self, inputs: Inputs | None = None) -> Decided:
        """The queries that the last commitment holds, each once for a customer; without a commitment, all.

        Args:
            inputs: queries that you kept, as they were asked, if the log keeps digests only.

        Raises:
            InputError: the log holds none, or an input is missing.
            ServingError: the database cannot be read.
        """
        c = _DECISIONS.c
        asked = sa.select(c.sha256, c.low, c.high, c.customer, c.input).order_by(*_IN_ORDER)
        with _told("be read"), self._engine.connect() as connection:
            rows = list(_once(connection.execute(asked.where(c.part > 0)))) or list(_once(connection.execute(asked)))
        if not rows:
            raise InputError("the log holds no decision: serve first, or raise gap=")
        known = {digest(one): one for one in map(self._as_asked, () if inputs is None else inputs)}
        missing = [row.sha256 for row in rows if row.input is None and row.sha256 not in known]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(rows)} queries are kept as digests, such as {missing[0][:16]}: give inputs=, "
                "the queries that you kept"
            )
        found = [known[row.sha256] if row.input is None else self._input(row.input, row.sha256) for row in rows]
        return Decided(
            found if isinstance(self._own, list) else np.stack(found),
            np.array([(row.low, row.high) for row in rows], np.int64),
            tuple(row.customer for row in rows),
        )

    def customers(self) -> dict[str, int]:
        """The number of decisions for each customer.

        Raises:
            ServingError: the database cannot be read.
        """
        c = _DECISIONS.c
        with _told("be read"), self._engine.connect() as connection:
            counted = sa.select(c.customer, sa.func.count()).group_by(c.customer).order_by(c.customer)
            return {row[0]: row[1] for row in connection.execute(counted)}

    def forget(self, *, before: datetime | None = None, customer: str | None = None) -> int:
        """Delete decisions: older than a time, or of a customer, or both.

        The last commitment no longer holds then, because nobody could tell what was left out: commit again.

        Returns:
            The number of decisions deleted.

        Raises:
            InputError: neither is given, or the time names no time zone.
            ServingError: the database cannot be written.
        """
        if before is None and customer is None:
            raise InputError("forget() needs before= or customer=: say which decisions to delete")
        if before is not None and getattr(before, "tzinfo", None) is None:
            raise InputError(f"before={before!r} names no time zone: give a datetime with one, such as timezone.utc")
        gone = sa.delete(_DECISIONS)
        if before is not None:
            gone = gone.where(_DECISIONS.c.seconds < before.timestamp())
        if customer is not None:
            gone = gone.where(_DECISIONS.c.customer == customer)
        with _told("be written"), self._engine.begin() as connection:
            return connection.execute(gone).rowcount

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _as_asked(self, value: Any) -> Any:
        return value if isinstance(self._own, list) else rounded(np.asarray(value), self._own.dtype)

    def _input(self, data: bytes, sha256: str) -> Any:
        if isinstance(self._own, list):
            value: Any = data.decode()
        else:
            dtype = self._own.dtype.newbyteorder("<")
            value = np.frombuffer(data, dtype).reshape(self._own.shape[1:]).astype(self._own.dtype)
        if digest(value) != sha256:
            raise ServingError(f"the log holds an input that differs from its digest {sha256[:16]}: restore the log")
        return value


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    array = np.ascontiguousarray(value)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _once(rows: Any) -> Iterator[Any]:
    """Each query of a customer's once: asked again, it is answered the same."""
    seen: set[Sequence[Any]] = set()
    for row in rows:
        key = tuple(row[:4])
        if key not in seen:
            seen.add(key)
            yield row


def _durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Faults of the database as an error that shows no query, since these may be private."""
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        raise ServingError(
            f"the log cannot {what} ({type(cause).__name__}: {cause}): check the place, the disk and the database"
        ) from error
