from __future__ import annotations

import pytest
import typer

from bench import encode, scheduler
from cli.commands.bench import options


def test_parts_and_a_quick_run_reach_a_benchmark_that_has_them() -> None:
    given = options("encode", encode, rounds=None, parts=["apple"], quick=True)

    assert given == {"parts": ["apple"], "quick": True}


def test_an_unknown_part_names_those_there_are() -> None:
    with pytest.raises(typer.BadParameter, match="there are: chunks, suite, playable, apple, shaka"):
        options("encode", encode, rounds=None, parts=["sound"], quick=False)


def test_a_benchmark_without_parts_refuses_one() -> None:
    with pytest.raises(typer.BadParameter, match="scheduler has no --part"):
        options("scheduler", scheduler, rounds=7, parts=["apple"], quick=False)
