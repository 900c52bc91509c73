"""Rows that were not used: which, why, and kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


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

    def write(self, path: Path) -> Path:
        """Write the rows to a Parquet file, all but ``row`` as text; what was there stays until the new one is whole.

        A file without rows is written too: it says that a reading left nothing out.
        """
        text = self.rows.astype({column: "str" for column in self.rows.columns if column != "row"})
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        try:
            pq.write_table(pa.Table.from_pandas(text, preserve_index=False), unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path
