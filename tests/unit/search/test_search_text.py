from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.search.model import Document, rank, score
from services.search.text import fold, grams, joined


@pytest.mark.parametrize(
    ("typed", "folded"),
    [
        ("Amélie", "amelie"),
        ("AMELIE", "amelie"),
        ("Straße", "strasse"),
        ("Łódź", "lodz"),
        ("Smørrebrød", "smorrebrod"),
        ("İstanbul", "istanbul"),
        ("ＴＯＫＹＯ　１９６４", "tokyo 1964"),
        ("Ocean’s  Eleven!", "oceans eleven"),
        ("Ocean's Eleven", "oceans eleven"),
        ("Spider-Man: No Way\tHome", "spider man no way home"),
        ("الأبُ", "الاب"),
        ("שָׁלוֹם", "שלום"),
        ("ОДЕССА", "одесса"),
        ("Ёлки", "елки"),
        ("\u200fשלום\u200e", "שלום"),
        ("🎬🍿", "🎬🍿"),
        ("❤️", "❤"),
        ("???", "???"),
        (" ... ", "..."),
        ("", ""),
    ],
)
def test_text_folds_to_what_compares_alike(typed: str, folded: str) -> None:
    assert fold(typed) == folded


@given(st.text())
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(min_size=1))
def test_what_can_be_shown_can_be_looked_up(text: str) -> None:
    assert bool(grams(fold(text))) == bool(fold(text))


def test_joined_words_share_the_pieces_of_split_ones() -> None:
    assert {"tar", "rwa", "war"} <= grams("star wars") & grams("starwars")


def test_dense_scripts_are_looked_up_by_characters_and_pairs() -> None:
    assert {"千", "千と", "隠し"} <= grams(fold("千と千尋の神隠し"))
    assert grams(fold("千")) & grams(fold("千と千尋の神隠し"))


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_score_is_a_share_and_only_the_same_name_is_the_whole(query: str, name: str) -> None:
    q, n = fold(query), fold(name)
    assert 0 <= score(q, n) <= 1
    assert (score(q, n) == 1) == (joined(q) == joined(n) != "")


def test_equal_scores_go_to_the_shorter_then_the_newer_name() -> None:
    def document(number: int, name: str, year: int) -> Document:
        return Document(title=f"titles/{number}", version=1, display_name=name, release_year=year)

    old, new = document(1, "Dune", 1984), document(2, "Dune", 2021)
    longer = document(3, "Dune: Part Two", 2024)
    assert [hit.document for hit in rank("dune", [longer, old, new])] == [new, old, longer]


def test_what_has_only_letters_in_common_is_no_hit() -> None:
    assert rank("solaris", [Document(title="titles/1", version=1, display_name="Casablanca")]) == []
