"""The online store: the newest feature row of every instrument, in Redis or Valkey.

From a notebook (``url`` as ``redis.url`` of ``alpha-panda config show``, ``universe`` of an ``OfflineStore``)::

    from feature_store.online.store import OnlineStore
    store = OnlineStore.connect(url)
    store.read(store.schema(), universe.instruments, now_ns=time.time_ns(), max_age_ns=180 * 10**9).frame()

Live scoring never reads here; what is here is what went out, for people, notebooks and the skew monitor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from feature_store.features.schema import FeatureSchema, UnknownFeature, feature_schema
from feature_store.market.types import Instrument, ist_text
from feature_store.online.blocks import (
    DIRECTORY_KEY,
    Block,
    DamagedBlock,
    ForeignSchema,
    OnlineStoreError,
    block_key,
    newest_key,
    pack,
    time_text,
    unpack,
)

if TYPE_CHECKING:
    import pandas as pd
    from redis import Redis

__all__ = [
    "BLOCK_TTL_SECONDS",
    "WRITE_SCRIPT",
    "DamagedBlock",
    "ForeignSchema",
    "NoRows",
    "OnlineRows",
    "OnlineSchema",
    "OnlineStore",
    "OnlineStoreError",
    "declared",
    "write_arguments",
]  # fmt: skip

BLOCK_TTL_SECONDS: Final = 900
"""How long a block outlives the one that replaced it."""
_TIMEOUT_SECONDS: Final = 2.0

WRITE_SCRIPT: Final = """
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before and before > ARGV[2] then
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
  return 0
end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if before and before ~= ARGV[2] then
  redis.call('EXPIRE', KEYS[1] .. ':' .. ARGV[1] .. ':' .. before, ARGV[4])
end
return 1
"""
"""One step for the server: the new block is there before it is named the newest, the one before it begins to expire,
and a block of an earlier bar (a task that runs a session again) never takes the place of a later one."""


class NoRows(OnlineStoreError):
    """Nothing was written yet for whom or what was asked."""


@dataclass(frozen=True, slots=True)
class OnlineSchema:
    """A feature schema that has rows in the store, as its writer described it."""

    hash: str
    bar_clock: str
    names: tuple[str, ...]
    newest_ns: int
    """Time of its newest block."""


@dataclass(frozen=True, slots=True, eq=False)
class OnlineRows:
    """The newest row of each instrument asked for, or the reason why there is none."""

    schema: FeatureSchema
    instruments: tuple[Instrument, ...]
    now_ns: int
    end_ns: NDArray[np.int64]
    """End of the bar of each row, shape ``(n,)``; 0 where there is no row at all."""
    warm: NDArray[np.bool_]
    """Whether the row equals that of a full-history run; False while the instrument is WARMING."""
    rows: NDArray[np.float64]
    """Feature rows in schema order, shape ``(n, n_features)``; all NaN where refused."""
    reasons: dict[str, str]
    """Why a row was refused, by symbol; every instrument that is not here has a row that may be read."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Rows that are neither refused nor WARMING, shape ``(n,)``."""
        refused = np.array([i.symbol in self.reasons for i in self.instruments], dtype=np.bool_)
        return self.warm & ~refused

    def frame(self) -> pd.DataFrame:
        """Give a table: one line per instrument with bar time, age in seconds, WARMING or not, reason and features."""
        import pandas as pd

        known = self.end_ns > 0
        return pd.DataFrame(
            {
                "bar_end": [ist_text(int(t)) if t > 0 else "" for t in self.end_ns],
                "age_seconds": np.where(known, (self.now_ns - self.end_ns) / 1e9, np.nan),
                "warming": ~self.warm,
                "refused": [self.reasons.get(i.symbol, "") for i in self.instruments],
                **{name: self.rows[:, k] for k, name in enumerate(self.schema.names)},
            },
            index=pd.Index([i.symbol for i in self.instruments], name="symbol"),
        )


class OnlineStore:
    """Feature rows, by schema and instrument.

    Parameters
    ----------
    client : redis.Redis
        Of bytes (``decode_responses=False``).
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    @classmethod
    def connect(cls, url: str) -> Self:
        """Connect to ``redis://HOST:PORT/0``; every call answers or fails within two seconds."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(client)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    # --- reading --------------------------------------------------------------------------------------------------

    def read(
        self, schema: FeatureSchema, instruments: Sequence[Instrument], *, now_ns: int, max_age_ns: int
    ) -> OnlineRows:
        """Read the newest rows of instruments.

        Parameters
        ----------
        schema : FeatureSchema
            What the columns must mean; rows of any other schema are refused.
        instruments : sequence of Instrument
            Whose rows, in the order in which they come back.
        now_ns : int
            The time that ages are counted from: the event time of the market, or the clock on the wall.
        max_age_ns : int
            A row whose bar ended longer ago is refused as stale; so is one that ends after ``now_ns``.

        Raises
        ------
        NoRows
            If no schema has rows.
        ForeignSchema
            If only other schemas have rows, or a block holds rows of another.
        DamagedBlock
            If a block is torn or no block, or one that is named as the newest is not there.
        redis.RedisError
            If the server does not answer.
        """
        blocks = self.blocks(schema)
        n = len(instruments)
        wanted = np.fromiter((i.instrument_token for i in instruments), dtype=np.int64, count=n)
        end_ns, warm = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
        rows = np.full((n, len(schema.names)), np.nan)
        for block in blocks:
            if not len(block.tokens):
                continue
            at = np.minimum(np.searchsorted(block.tokens, wanted), len(block.tokens) - 1)
            newer = (block.tokens[at] == wanted) & (block.bar_end_ns[at] > end_ns)  # partitions were once cut otherwise
            end_ns[newer], warm[newer], rows[newer] = (
                block.bar_end_ns[at[newer]],
                block.warm[at[newer]],
                block.rows[at[newer]],
            )
        reasons = _reasons(instruments, end_ns, now_ns, max_age_ns)
        refused = (end_ns == 0) | (end_ns > now_ns) | (now_ns - end_ns > max_age_ns)
        rows[refused], warm[refused] = np.nan, False
        return OnlineRows(schema, tuple(instruments), now_ns, end_ns, warm, rows, reasons)

    def blocks(self, schema: FeatureSchema) -> tuple[Block, ...]:
        """Read the newest block of every partition; raises as `read`."""
        newest = self._newest(schema.hash)
        if not newest:
            self._refuse_foreign(schema)
        names = [block_key(schema.hash, partition, end_ns) for partition, end_ns in newest.items()]
        found = cast("list[bytes | None]", self._client.mget(names))
        if None in found:  # replaced and expired between the two questions, or lost
            newest = self._newest(schema.hash)
            names = [block_key(schema.hash, partition, end_ns) for partition, end_ns in newest.items()]
            found = cast("list[bytes | None]", self._client.mget(names))
        blocks = []
        for name, data in zip(names, found, strict=True):
            if data is None:
                raise DamagedBlock(
                    f"{name} is named as the newest block but is not there (evicted?); the next closed bar brings "
                    "another: give Redis the memory that it needs, with maxmemory-policy noeviction"
                )
            blocks.append(unpack(data, name, schema.hash, schema.names))
        return tuple(blocks)

    def schemas(self) -> tuple[OnlineSchema, ...]:
        """Give every schema that has rows, the one written last first."""
        found = cast("dict[bytes, bytes]", self._client.hgetall(DIRECTORY_KEY))
        schemas = []
        for name, described in found.items():
            text, facts = name.decode(), json.loads(described)
            newest = max(self._newest(text).values(), default=0)
            schemas.append(OnlineSchema(text, facts["bar_clock"], tuple(facts["names"]), newest))
        return tuple(sorted(schemas, key=lambda schema: (-schema.newest_ns, schema.hash)))

    def schema(self) -> FeatureSchema:
        """Give the schema that was written last, as this code declares it.

        Raises
        ------
        NoRows
            If no schema has rows.
        ForeignSchema
            If this code computes features of those names differently.
        """
        written = next(iter(self.schemas()), None)
        if written is None:
            raise self._no_rows()
        return declared(written)

    def _no_rows(self) -> NoRows:
        return NoRows(
            "the online store has no rows yet: they come with the first bar that a running strategy closes "
            "(`alpha-panda status` shows whether one runs)"
        )

    def _newest(self, schema_hash: str) -> dict[int, int]:
        found = cast("dict[bytes, bytes]", self._client.hgetall(newest_key(schema_hash)))
        return {int(partition): int(end_ns) for partition, end_ns in sorted(found.items())}

    def _refuse_foreign(self, schema: FeatureSchema) -> None:
        others = self.schemas()
        if not others:
            raise self._no_rows()
        there = "; ".join(f"{o.hash[:12]}… on {o.bar_clock} ({', '.join(o.names)})" for o in others[:3])
        raise ForeignSchema(
            f"the online store has no rows of feature schema {schema.hash[:12]}…; it has those of {there}. Ask for the "
            "schema of the model that runs, or promote a model with this one"
        )

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, schema: FeatureSchema, block: Block) -> None:
        """Write a block and wait for it; the live side does the same without waiting."""
        described, script_arguments = write_arguments(schema, block)
        self._client.hset(*described)
        self._client.eval(WRITE_SCRIPT, 2, *script_arguments)


def declared(written: OnlineSchema) -> FeatureSchema:
    """Give a schema of the store as this code declares it.

    Raises
    ------
    ForeignSchema
        If a name is unknown here, or its declaration (parameters, version) is another one.
    """
    try:
        schema = feature_schema(written.names, written.bar_clock)
    except UnknownFeature as unknown:
        raise ForeignSchema(
            f"the rows written last are of feature schema {written.hash[:12]}…, which this code does not have "
            f"({unknown}); run the code that wrote them, or wait for a model of this code"
        ) from unknown
    if schema.hash != written.hash:
        raise ForeignSchema(
            f"the rows written last are of feature schema {written.hash[:12]}…; this code declares the same names "
            f"({', '.join(written.names)}) as {schema.hash[:12]}…: run the code that wrote them, or wait for a model "
            "of this code"
        )
    return schema


def write_arguments(schema: FeatureSchema, block: Block) -> tuple[tuple[str, str, str], tuple[Any, ...]]:
    """Give the arguments of the ``HSET`` that describes a schema, and of `WRITE_SCRIPT` (2 keys) for a block of it."""
    described = json.dumps({"bar_clock": schema.bar_clock, "names": list(schema.names)})
    keys = newest_key(schema.hash), block_key(schema.hash, block.partition, block.end_ns)
    return (
        (DIRECTORY_KEY, schema.hash, described),
        (*keys, str(block.partition), time_text(block.end_ns), pack(block, schema.names), str(BLOCK_TTL_SECONDS)),
    )


def _reasons(
    instruments: Sequence[Instrument], end_ns: NDArray[np.int64], now_ns: int, max_age_ns: int
) -> dict[str, str]:
    reasons = {}
    for k in np.flatnonzero((end_ns == 0) | (end_ns > now_ns) | (now_ns - end_ns > max_age_ns)).tolist():
        symbol, end, age = instruments[k].symbol, int(end_ns[k]), now_ns - int(end_ns[k])
        if end == 0:
            reasons[symbol] = "missing: no bar of it was closed since the rows began; check that it is subscribed"
        elif age < 0:
            reasons[symbol] = f"from the future: its bar ended at {ist_text(end)}, now is {ist_text(now_ns)}"
        else:
            reasons[symbol] = (
                f"stale: its bar ended at {ist_text(end)}, {age / 1e9:.0f} s ago, more than the {max_age_ns / 1e9:g} s "
                "allowed; is the strategy runner alive (`alpha-panda status`), and does the instrument trade?"
            )
    return reasons
