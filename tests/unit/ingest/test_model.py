from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.model import (
    LIFETIME,
    OffsetMismatch,
    PartBeyondEnd,
    SourceEmpty,
    State,
    Upload,
    UploadEnded,
    UploadQuotaExceeded,
    UploadTooLarge,
    check_size,
)
from services.runtime.errors import KinoError

NOW = datetime(2025, 1, 1, tzinfo=UTC)
UPLOAD = Upload(
    upload_id="u", title="titles/t", owner="users/a", file_name="a.mp4", size_bytes=100, received_bytes=40,
    create_time=NOW, expire_time=NOW + LIFETIME,
)  # fmt: skip


@given(offset=st.integers(0, 120), size=st.integers(1, 120), received=st.integers(0, 100))
def test_a_part_is_new_only_where_the_last_one_ended(offset: int, size: int, received: int) -> None:
    upload = replace(UPLOAD, received_bytes=received)
    end = offset + size
    if end > 100:
        with pytest.raises(PartBeyondEnd):
            upload.place(offset, size)
    elif end <= received:
        assert upload.place(offset, size) is False
    elif offset == received:
        assert upload.place(offset, size) is True
    else:
        with pytest.raises(OffsetMismatch) as raised:
            upload.place(offset, size)
        assert raised.value.metadata == {"offset_bytes": str(offset), "received_bytes": str(received)}


@pytest.mark.parametrize("state", [State.CANCELED, State.REJECTED, State.COMPLETE])
def test_an_ended_upload_takes_no_part(state: State) -> None:
    with pytest.raises(UploadEnded):
        replace(UPLOAD, state=state).place(40, 1)


@pytest.mark.parametrize(
    ("size", "used", "error"),
    [(0, 0, SourceEmpty), (101, 0, UploadTooLarge), (60, 141, UploadQuotaExceeded)],
)
def test_sizes_that_are_refused(size: int, used: int, error: type[KinoError]) -> None:
    with pytest.raises(error):
        check_size(size, max_bytes=100, open_bytes=used, quota_bytes=200)


def test_a_file_that_just_fits_is_taken() -> None:
    check_size(100, max_bytes=100, open_bytes=100, quota_bytes=200)
