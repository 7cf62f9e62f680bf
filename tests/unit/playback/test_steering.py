"""Steering: the same order for all who ask, little moves when an edge goes, and none is above its bound."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.playback.steering import SLACK, EdgeLoad, ranked, steer


def _edge(number: int, capacity: int = 1000, streams: int = 0) -> EdgeLoad:
    return EdgeLoad(address=f"edge-{number}:8443", streams=streams, capacity_streams=capacity)


_edges = st.lists(
    st.builds(_edge, st.integers(0, 99), st.integers(1, 500), st.integers(0, 500)),
    min_size=1,
    max_size=8,
    unique_by=lambda edge: edge.address,
)
_keys = st.text(max_size=20)


@given(_keys, _edges, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_who_lists_the_edges(
    key: str, edges: list[EdgeLoad], random: Random
) -> None:
    shuffled = random.sample(edges, len(edges))
    assert ranked(key, shuffled) == ranked(key, edges)
    assert steer(key, shuffled) == steer(key, edges)


@given(_keys, _edges, st.data())
def test_an_edge_that_goes_moves_only_its_own_titles(
    key: str, edges: list[EdgeLoad], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(edges))
    left = [edge for edge in edges if edge != gone]
    assert ranked(key, left) == [edge for edge in ranked(key, edges) if edge != gone]


@given(_keys, _edges)
def test_load_does_not_change_what_an_edge_draws(key: str, edges: list[EdgeLoad]) -> None:
    idle = [replace(edge, streams=0) for edge in edges]
    assert [e.address for e in ranked(key, edges)] == [e.address for e in ranked(key, idle)]


@given(_keys, _edges)
def test_an_edge_at_its_capacity_is_left_out_and_no_other(key: str, edges: list[EdgeLoad]) -> None:
    free = {edge.address for edge in edges if edge.streams < edge.capacity_streams}
    assert {edge.address for edge in steer(key, edges)} == free
    assert len(steer(key, edges)) == len(free)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), max_size=150),
    st.sampled_from([0.0, 0.1, SLACK, 1.0]),
)
def test_no_edge_is_above_its_bound_however_popular_a_title(
    capacities: list[int], plays: list[int], slack: float
) -> None:
    # Streams begin one after the other, nearly all of the same few titles.
    edges = {f"edge-{n}:8443": _edge(n, capacity) for n, capacity in enumerate(capacities)}
    for count, title in enumerate(plays[: sum(capacities)], start=1):
        first = steer(f"titles/{title}", edges.values(), slack)[0]
        edges[first.address] = replace(first, streams=first.streams + 1)
        share = first.capacity_streams / sum(capacities)
        assert first.streams + 1 <= math.ceil((1 + slack) * count * share)
        assert first.streams + 1 <= first.capacity_streams


def test_titles_are_shared_out_by_capacity() -> None:
    edges = [_edge(1, 100), _edge(2, 200), _edge(3, 300)]
    titles = 6000
    firsts = Counter(steer(f"titles/{n}", edges)[0].capacity_streams for n in range(titles))
    for edge in edges:
        expected = titles * edge.capacity_streams / 600
        assert abs(firsts[edge.capacity_streams] - expected) < 5 * math.sqrt(expected)


def test_a_full_favourite_comes_after_those_with_room() -> None:
    favourite, *others = ranked("titles/a", [_edge(n) for n in range(4)])
    full = replace(favourite, streams=100)
    assert steer("titles/a", [full, *others]) == [*others, full]
