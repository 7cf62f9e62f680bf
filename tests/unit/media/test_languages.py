from __future__ import annotations

import pytest

from services.media.languages import language_tag, three_letters


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("eng", "en"),
        ("deu", "de"),
        ("ger", "de"),
        ("GER", "de"),
        ("de", "de"),
        ("gsw", "gsw"),
        ("zho-Hant-TW", "zh-Hant-TW"),
        ("und", "und"),
        ("", "und"),
        ('en",URI="elsewhere', "und"),
        ("klingon!", "und"),
    ],
)
def test_a_language_is_named_as_players_look_for_it(written: str, tag: str) -> None:
    assert language_tag(written) == tag


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("de", "deu"),
        ("sk", "slk"),
        ("zh-Hant-TW", "zho"),
        ("gsw", "gsw"),
        ("eng", "eng"),
        ("und", "und"),
        ("x", "und"),
    ],
)
def test_mp4_gets_the_three_letters_of_a_language(tag: str, code: str) -> None:
    assert three_letters(tag) == code
