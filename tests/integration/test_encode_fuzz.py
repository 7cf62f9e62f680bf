from __future__ import annotations

import asyncio
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest

from services.media.testfilm import FilmSpec, make_film
from tests.support.encoding import transform
from tests.support.fuzzing import fuzz

SPEC = FilmSpec(seconds=Fraction(2), width=160, height=90, cuts=(), loud=None)
#: A quick round; the same with more seeds has been run by hand.
SEEDS = range(8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_sources_with_flipped_bytes_are_made_or_refused_with_a_type_and_leave_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    film = tmp_path / "film.mp4"
    asyncio.run(make_film(film, SPEC))
    source = transform(film, tmp_path / f"source.{suffix}", [], ["-c", "copy"])
    found = asyncio.run(fuzz(source.read_bytes(), tmp_path, suffix, SEEDS))
    assert found.total() == len(SEEDS)
    assert found["made"] > 0
    assert not [reason for reason in found if reason.startswith("other")]
    assert list(scratch.iterdir()) == []
