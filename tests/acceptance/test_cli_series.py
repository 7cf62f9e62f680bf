from __future__ import annotations

import urllib.request

from tests.support.stack import Stack


def test_a_series_a_picture_rights_and_a_list_by_the_command(stack: Stack) -> None:
    series = stack.json("operator", "series", "create", "--name", "By the command", "--genre", "drama")[
        "series"
    ]
    season = stack.json("operator", "series", "add-season", series, "--number", "1")["season"]
    episode = stack.json("operator", "series", "add-episode", season, stack.title)
    assert episode["number"] == 1
    listed = stack.json("viewer", "series", "show", series)
    assert [(one["title"], one["details"]["place"]["season_number"]) for one in listed] == [(stack.title, 1)]
    assert stack.kino("operator", "series", "reorder", season, stack.title).returncode == 0

    pictures = stack.json("operator", "titles", "artwork", series, "--at", "0:05", "--of", stack.title)
    with urllib.request.urlopen(pictures["small"]) as answer:
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.read(2) == b"\xff\xd8"

    limited = stack.json("operator", "titles", "rights", stack.title, "--region", "de", "--end", "2999-01-01")
    assert limited["rights"] == [{"end_time": "2999-01-01T00:00:00Z", "region_codes": ["DE"]}]
    refused = stack.kino("viewer", "play", stack.title, "--out", "/dev/null")
    assert (refused.returncode, "may not be watched where you are" in refused.stderr) == (1, True)
    stack.json("operator", "titles", "rights", stack.title, "--clear")

    stack.json("viewer", "watchlist", "add", series)
    assert [one["subject"] for one in stack.json("viewer", "watchlist", "list")] == [series]
    assert stack.kino("viewer", "watchlist", "remove", series).returncode == 0
    assert stack.json("viewer", "watchlist", "list") == []

    assert stack.kino("operator", "titles", "unpublish", stack.title).returncode == 0
    assert stack.kino("viewer", "titles", "show", stack.title).returncode == 1
    assert stack.kino("operator", "titles", "publish", stack.title).returncode == 0
    assert stack.kino("operator", "series", "delete", series).returncode == 0
