from __future__ import annotations

import pytest

from services.playback.languages import language_tag


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
