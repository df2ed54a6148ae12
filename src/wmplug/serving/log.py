"""The log of what a served model decided: the questions of a later claim.

A decision is on disk before the answer leaves. Many processes may write to one log. In SQLite it is a file, in
PostgreSQL the tables `wmplug_decisions` and `wmplug_log`. A log belongs to one watermark.

A commitment takes all decisions that were logged so far, in their order. What came later belongs to the next.
"""

import functools
import json
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from wmplug.errors import InputError, ServingError
from wmplug.extras import need
from wmplug.keys.merkle import Frontier
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
_LEAF = (_DECISIONS.c.sha256, _DECISIONS.c.low, _DECISIONS.c.high, _DECISIONS.c.customer)
_PATIENCE = "5"  # seconds for which an answer waits until PostgreSQL takes the connection


class _Hashed(NamedTuple):
    """How far a log was hashed: the decisions of its first commitments, so many rows, and their tree."""

    part: int = 0
    rows: int = 0
    tree: Frontier = Frontier()


class Log:
    """The decisions of one watermark.

    Args:
        place: a file (SQLite), or the URL of a database, such as postgresql+psycopg://user@host/name.
        mark: the watermark.
        keep: "inputs", or "digests" where queries must not be kept; you then bring the inputs to verify.
        read_only: write nothing, so that a file suffices that you can only read.

    Attributes:
        watermark: id of the watermark.

    Raises:
        InputError: keep is neither, or the log belongs to another watermark.
        ServingError: the database cannot be opened, or a newer wmplug wrote the log.
    """

    def __init__(self, place: str | Path, mark: Watermark, *, keep: str = "inputs", read_only: bool = False) -> None:
        if keep not in ("inputs", "digests"):
            raise InputError(f"keep={keep!r}: choose 'inputs' or 'digests'")
        self._keep, self._own, self.watermark = keep, mark.triggers.plan.inputs, mark.id
        with _told("be opened"):
            self._engine = _engine(str(place), read_only)
            self._prepare({"schema": str(SCHEMA), "watermark": mark.id}, read_only)

    def _prepare(self, facts: dict[str, str], read_only: bool) -> None:
        for last in (False, True):
            try:
                if not read_only:
                    _TABLES.create_all(self._engine)
                with self._engine.begin() as connection:
                    found = {name: value for name, value in connection.execute(sa.select(_LOG))}
                    if not found and not read_only:
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

    def commit(self, committed: Mapping[str, int] | None = None) -> tuple[str, int]:
        """Take all decisions so far into a commitment.

        Args:
            committed: roots of this log that the register holds, in hex, and the number of decisions of each. If the
                last is among them and nothing was deleted since, only later decisions are hashed.

        Returns:
            The Merkle root, in hex, over all decisions that were ever taken, and their number.

        Raises:
            ServingError: the database cannot be written.
        """
        part, count = _DECISIONS.c.part, sa.func.count()
        with _told("be written"), self._engine.begin() as connection:
            _lock(connection)
            done = _hashed(connection, committed or {})
            last = connection.scalar(sa.select(sa.func.max(part))) or 0
            fresh = sa.update(_DECISIONS).where(part.is_(None)).values(part=last + 1)
            last += connection.execute(fresh).rowcount > 0
            rows = connection.scalar(sa.select(count).where(part <= last)) or 0
        new = part.between(done.part + 1, last)
        asked = sa.select(*_LEAF).where(new).order_by(*_IN_ORDER)
        again = sa.select(*_LEAF).where(
            part <= done.part, _DECISIONS.c.sha256.in_(sa.select(_DECISIONS.c.sha256).where(new))
        )
        # Those who serve write on meanwhile: to hash a large log takes longer than they wait.
        with _told("be read"), self._engine.connect() as connection:
            seen = connection.execute(again).all()
            tree = done.tree.grown(leaf_of(*row) for row in _once(connection.execute(asked), seen))
        if not tree.size:
            raise ServingError("the log holds no decision, so there is nothing to commit to: serve first")
        with _told("be written"), self._engine.begin() as connection:
            _lock(connection)
            _keep(connection, _Hashed(last, rows, tree))
        return tree.root.hex(), tree.size

    def decided(self, inputs: Inputs | None = None, *, model: str | None = None) -> Decided:
        """The queries that the last commitment holds, each once for a customer; without a commitment, all.

        Args:
            inputs: queries that you kept, as they were asked, if the log keeps digests only.
            model: those alone that a model of this name or digest was unsure about. They are a part of the log, which
                the register does not bind.

        Raises:
            InputError: the log holds none, or an input is missing.
            ServingError: the database cannot be read.
        """
        c = _DECISIONS.c
        asked = sa.select(*_LEAF, c.input).order_by(*_IN_ORDER)
        if model is not None:
            asked = asked.where(c.model == model)
        with _told("be read"), self._engine.connect() as connection:
            rows = list(_once(connection.execute(asked.where(c.part > 0)))) or list(_once(connection.execute(asked)))
        if not rows:
            of = "" if model is None else f" of model {model!r}, but of {', '.join(map(repr, self.models())) or 'none'}"
            raise InputError(f"the log holds no decision{of}: serve first, or raise gap=")
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
        return self._counted(_DECISIONS.c.customer)

    def models(self) -> dict[str, int]:
        """The number of decisions for each model, by the name or digest that its serving gave as version=.

        Raises:
            ServingError: the database cannot be read.
        """
        return self._counted(_DECISIONS.c.model)

    def _counted(self, column: Any) -> dict[str, int]:
        with _told("be read"), self._engine.connect() as connection:
            counted = sa.select(column, sa.func.count()).group_by(column).order_by(column)
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


def _once(rows: Any, before: Iterable[Sequence[Any]] = ()) -> Iterator[Any]:
    """Each query of a customer's once, if it did not come before: asked again, it is answered the same."""
    seen = set(map(tuple, before))
    for row in rows:
        key = tuple(row[:4])
        if key not in seen:
            seen.add(key)
            yield row


def _lock(connection: Any) -> None:
    """Lock a row, so that one commitment ends before another begins."""
    connection.execute(sa.update(_LOG).where(_LOG.c.name == "schema").values(value=_LOG.c.value))


def _hashed(connection: Any, committed: Mapping[str, int]) -> _Hashed:
    """How far the log was hashed; from its beginning, if some of that was deleted or the register lacks its root."""
    value = connection.scalar(sa.select(_LOG.c.value).where(_LOG.c.name == "hashed"))
    if value is None:
        return _Hashed()
    with suppress(ValueError, KeyError, TypeError):  # somebody wrote something else there
        kept = json.loads(value)
        found = _Hashed(kept["part"], kept["rows"], Frontier(kept["size"], tuple(map(bytes.fromhex, kept["peaks"]))))
        left = connection.scalar(sa.select(sa.func.count()).where(_DECISIONS.c.part <= found.part))
        if left == found.rows and committed.get(found.tree.root.hex()) == found.tree.size:
            return found
    connection.execute(sa.delete(_LOG).where(_LOG.c.name == "hashed"))
    return _Hashed()


def _keep(connection: Any, done: _Hashed) -> None:
    peaks = [peak.hex() for peak in done.tree.peaks]
    value = json.dumps({"part": done.part, "rows": done.rows, "size": done.tree.size, "peaks": peaks})
    connection.execute(sa.delete(_LOG).where(_LOG.c.name == "hashed"))
    connection.execute(sa.insert(_LOG).values(name="hashed", value=value))


def _engine(place: str, read_only: bool) -> sa.Engine:
    """What connects to a file, or to the database at a URL."""
    url = sa.make_url(place) if "://" in place else sa.URL.create("sqlite", database=place)
    if url.get_driver_name() in ("psycopg", "psycopg2") and "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": _PATIENCE})
    local = url.get_backend_name() == "sqlite"
    if local and read_only:
        file = Path(url.database or "").absolute()
        can_write = os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
        # SQLite reads with the help of files beside the log, which a reader who may write removes at the end. Where
        # nobody else has the log open there are none, and it is read without.
        alone = not can_write and not Path(f"{file}-wal").exists()
        query = {"uri": "true", "mode": "rw" if can_write else "ro", "immutable": str(int(alone))}
        url = url.set(database=f"file:{quote(str(file))}", query=query)
    engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
    if local:
        sa.event.listen(engine, "connect", _reading if read_only else _durable)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(_begin_anew, weakref.ref(engine)))
    return engine


def _begin_anew(engine: "weakref.ref[sa.Engine]") -> None:
    """Leave connections to the parent process, which goes on using them."""
    if (own := engine()) is not None:
        own.dispose(close=False)


def _durable(connection: Any, _record: Any) -> None:
    _set(connection, "journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000")


def _reading(connection: Any, _record: Any) -> None:
    _set(connection, "query_only=ON", "busy_timeout=30000")


def _set(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Faults of the database as an error that shows no query, since these may be private."""
    try:
        yield
    except ImportError as error:
        raise ServingError(
            f"the log cannot {what}, because the driver of its database cannot be imported ({error}): for PostgreSQL, "
            "`pip install 'psycopg[binary]'` and give a URL that begins with postgresql+psycopg://"
        ) from error
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise ServingError(
            f"the log cannot {what} ({type(cause).__name__}: {cause}): check the place, the disk and the database"
        ) from error
