import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from feature_store.market.membership import MemberPeriod, Membership
from feature_store.market.types import Session, Universe
from feature_store.sources.dated_tables import read_membership

D = dt.date
TABLE = "Symbol,From,To\nAAA,2020-01-01,2021-06-30\nAAA,2023-01-02,\nBBB,2022-01-03,2022-01-03\n"


@pytest.fixture
def table(tmp_path: Path) -> Membership:
    (tmp_path / "members.csv").write_text(TABLE)
    return read_membership(tmp_path / "members.csv")


@pytest.mark.parametrize(
    ("date", "members"),
    [
        (D(2019, 12, 31), set()),
        (D(2020, 1, 1), {"AAA"}),
        (D(2021, 6, 30), {"AAA"}),
        (D(2021, 7, 1), set()),
        (D(2022, 1, 3), {"BBB"}),
        (D(2022, 1, 4), set()),
        (D(2026, 1, 5), {"AAA"}),
    ],
)
def test_both_ends_are_in_and_no_end_means_still(table: Membership, date: dt.date, members: set[str]) -> None:
    assert table.members(date) == members


def test_a_mask_says_what_members_says_row_by_row(table: Membership) -> None:
    universe = Universe.from_symbols(["AAA", "BBB", "CCC"])
    rng = np.random.default_rng(1)
    dates = [D(2019, 12, 1) + dt.timedelta(days=int(k)) for k in rng.integers(0, 1600, 500)]
    dates += [period.first for period in table.periods] + [p.last for p in table.periods if p.last]
    time_ns = np.array([Session.regular(d).open_ns + int(rng.integers(0, 10**9)) for d in dates], dtype=np.int64)
    instrument = rng.integers(0, 3, len(dates)).astype(np.int32)
    expected = [
        universe.instruments[i].symbol in table.members(date) for i, date in zip(instrument, dates, strict=True)
    ]
    mask = table.mask(instrument, time_ns, universe)
    assert mask.dtype == np.bool_
    assert mask.tolist() == expected
    assert 0 < mask.sum() < len(mask)


def test_an_empty_mask_and_dates_by_indian_midnight(table: Membership) -> None:
    universe = Universe.from_symbols(["BBB"])
    none = np.empty(0, dtype=np.int32)
    assert len(table.mask(none, none.astype(np.int64), universe)) == 0
    midnight = Session.regular(D(2022, 1, 3)).open_ns - (9 * 60 + 15) * 60 * 10**9
    times = np.array([midnight - 1, midnight, midnight + 24 * 3600 * 10**9 - 1, midnight + 24 * 3600 * 10**9])
    assert table.mask(np.zeros(4, dtype=np.int32), times, universe).tolist() == [False, True, True, False]


def test_the_digest_follows_the_periods_and_not_their_order(table: Membership) -> None:
    assert Membership(table.periods[::-1]).digest == table.digest
    assert Membership((*table.periods, MemberPeriod("CCC", D(2020, 1, 1)))).digest != table.digest
    assert table.symbols == {"AAA", "BBB"}
