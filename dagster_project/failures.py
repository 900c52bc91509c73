"""Expected failures as sentences: the UI shows what is wrong and what to do instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def expected_failures(*expected: type[Exception]) -> Iterator[None]:
    """Turn expected exceptions, whose messages say what to do, into a failed step that a retry would not help."""
    try:
        yield
    except expected as error:
        raise dg.Failure(str(error), allow_retries=False) from error
