"""Rows that were not used: which, why, and kept."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass
class Quarantine:
    """Rows that were not used."""

    rows: pd.DataFrame
    """``row`` (1 is the first row of data in the file), ``reason``, and the row's own values as text."""

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> dict[str, int]:
        """Number of rows by reason."""
        return {str(reason): int(n) for reason, n in self.rows["reason"].value_counts().sort_index().items()}

    def first_rows(self) -> dict[str, int]:
        """The first row of each reason: where to look in the file."""
        return {str(reason): int(row) for reason, row in self.rows.groupby("reason")["row"].min().items()}
