import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from numba.core import caching

from feature_store.market.numba_cache import share_safely


def test_two_who_save_code_of_two_signatures_at_once_each_find_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_safely()
    both_have_read = threading.Barrier(2)

    def read(self: caching.IndexDataCacheFile) -> dict[str, str]:
        entries: dict[str, str] = load_index(self)
        with suppress(threading.BrokenBarrierError):  # the second may not read until the first has written
            both_have_read.wait(timeout=0.5)
        return entries

    def saved(signature: str) -> caching.IndexDataCacheFile:
        files = caching.IndexDataCacheFile(str(tmp_path), "function", "stamp")
        files.save(signature, f"code for {signature}")
        return files

    load_index = caching.IndexDataCacheFile._load_index
    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as threads:
        patched.setattr(caching.IndexDataCacheFile, "_load_index", read)
        files, _ = threads.map(saved, ("integers", "floats"))
    assert [files.load(signature) for signature in ("integers", "floats")] == ["code for integers", "code for floats"]
