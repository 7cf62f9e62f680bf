from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main

from cli.commands import register
from cli.main import app
from tests.support.stack import Stack, run_kino

register(app)

#: Commands whose use isn't told by their name and arguments alone.
WITH_EXAMPLE = (
    "up",
    "serve",
    "claim",
    "signup",
    "ingest",
    "play",
    "search",
    "demo",
    "doctor",
    "doctor disk",
    "plan",
    "bench",
    "users role",
    "billing create-plan",
)


def all_commands() -> dict[str, Any]:
    """Every command by its words; of a class that typer keeps to itself."""
    found: dict[str, Any] = {}
    groups = [("", typer.main.get_command(app))]
    for prefix, group in groups:
        assert isinstance(group, typer.core.TyperGroup)
        for name, command in group.commands.items():
            if isinstance(command, typer.core.TyperGroup):
                groups.append((f"{prefix}{name} ", command))
            if not isinstance(command, typer.core.TyperGroup) or command.invoke_without_command:
                found[f"{prefix}{name}"] = command
    return found


def test_there_are_the_commands_of_the_design() -> None:
    first_words = {path.split()[0] for path in all_commands()}

    assert first_words >= {
        "up",
        "serve",
        "ingest",
        "play",
        "search",
        "history",
        "billing",
        "jobs",
        "edge",
        "plan",
        "bench",
        "doctor",
        "demo",
    }


def test_every_command_and_option_says_what_it_is_for() -> None:
    silent = [
        f"{path} {parameter.name}"
        for path, command in all_commands().items()
        for parameter in command.params
        if isinstance(parameter, typer.core.TyperOption) and not parameter.help
    ]

    assert [path for path, command in all_commands().items() if not command.help] == []
    assert silent == []


@pytest.mark.parametrize("path", WITH_EXAMPLE)
def test_help_shows_an_example_that_is_a_command_line_of_kino(path: str) -> None:
    command = all_commands()[path]
    lines = [line.strip() for line in (command.help or "").splitlines()]

    assert any(f"kino {path}" in line.replace("--json ", "") for line in lines)


def test_help_comes_with_zero_and_a_wrong_command_line_with_two() -> None:
    shown, unknown, missing = (
        run_kino(*argv) for argv in (("play", "--help"), ("play", "--no-such-option"), ("play",))
    )

    assert (shown.returncode, unknown.returncode, missing.returncode) == (0, 2, 2)
    assert "kino play titles/" in shown.stdout
    assert unknown.stdout == missing.stdout == ""
    assert "--no-such-option" in unknown.stderr


@pytest.mark.parametrize("codec", ["h265", "vp9"])
def test_an_unknown_codec_is_a_wrong_command_line(codec: str) -> None:
    done = run_kino("play", "titles/x", "--codec", codec)

    assert done.returncode == 2
    assert "h264, hevc, av1" in done.stderr


def test_nobody_at_the_address_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    env = {"KINO_CREDENTIALS": str(tmp_path / "none.json"), "KINO_PASSWORD": "correct horse battery"}
    done = run_kino("--url", "http://127.0.0.1:9", "login", "--email", "a@example.org", env=env)

    assert done.returncode == 1
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("kino: Kino can't be reached:")
    assert "`kino up`" in sentence


def test_nobody_signed_in_is_told_to_sign_in(stack: Stack) -> None:
    done = stack.kino("stranger", "whoami")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"kino: You are not signed in at {stack.gateway}: run `kino login`")


def test_an_error_is_json_for_programs(stack: Stack) -> None:
    done = stack.kino("viewer", "--json", "titles", "show", "titles/none")
    error = json.loads(done.stdout)["error"]

    assert (done.returncode, error["reason"]) == (1, "TITLE_NOT_FOUND")
    assert error["message"].endswith(".")


@pytest.mark.parametrize(
    "argv",
    [
        ("operator", "whoami"),
        ("operator", "users", "list"),
        ("operator", "jobs", "list"),
        ("operator", "jobs", "workers"),
        ("operator", "billing", "ledger"),
        ("viewer", "titles", "list"),
        ("viewer", "search", "clokmakers"),
        ("viewer", "history", "list"),
        ("viewer", "history", "continue"),
        ("viewer", "billing", "plans"),
        ("viewer", "billing", "invoices"),
        ("viewer", "billing", "subscriptions"),
        ("viewer", "plan"),
    ],
    ids=" ".join,
)
def test_json_is_one_value_and_the_table_has_its_names(stack: Stack, argv: tuple[str, ...]) -> None:
    who, *command = argv
    value = stack.json(who, *command)
    table = stack.kino(who, *command)

    assert value is not None
    assert table.returncode == 0, table.stderr
    assert isinstance(value, list | dict)


def test_a_pipe_gets_one_valid_stream_and_history_the_position(stack: Stack, tmp_path: Path) -> None:
    out = tmp_path / "part.mp4"
    said = stack.json(
        "viewer",
        "play",
        stack.title,
        "--offset",
        "0:10",
        "--until",
        "0:12",
        "--codec",
        "av1",
        "--out",
        str(out),
    )
    [view] = [view for view in stack.json("viewer", "history", "list") if view["title"] == stack.title]

    assert out.read_bytes()[4:8] == b"ftyp"
    assert out.stat().st_size > said["media_bytes"] > 0
    assert (said["video"], said["stopped_at"]) == ("av1-480", "0:00:12.000")
    assert view["position"].startswith("11.9") or view["position"].startswith("12")


def test_what_went_wrong_with_a_file_is_one_sentence(stack: Stack, tmp_path: Path) -> None:
    missing = stack.kino("operator", "ingest", str(tmp_path / "none.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("no film " * 1000)
    before = stack.json("operator", "titles", "list")
    refused = stack.kino("operator", "ingest", str(text))

    assert stack.json("operator", "titles", "list") == before
    assert (missing.returncode, refused.returncode) == (1, 1)
    assert "can't be read: No such file or directory." in missing.stderr
    assert refused.stderr.splitlines()[-1].startswith("kino: The file is not a video that Kino can read")


def test_a_viewer_may_not_ingest(stack: Stack, short_film: Path) -> None:
    done = stack.kino("viewer", "--json", "ingest", str(short_film))

    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["error"]["reason"] == "ROLE_MISSING"


def test_explain_shows_every_task_of_a_job(stack: Stack) -> None:
    [job] = [job for job in stack.json("operator", "jobs", "list") if job["title"] == stack.title]
    explained = stack.json("operator", "jobs", "explain", job["name"])

    assert len(explained["tasks"]) == job["task_count"] == job["done_task_count"]
    assert {task["state"] for task in explained["tasks"]} == {"STATE_SUCCEEDED"}
    assert all(task["attempts"] and task["summary"] for task in explained["tasks"])


def test_segments_made_again_by_another_worker_are_the_same_bytes(stack: Stack) -> None:
    checked = stack.json("operator", "jobs", "verify", stack.title, "--sample", "1%")

    segments = [segment for one in checked for segment in one["segments"]]
    assert segments
    assert all(segment["published_sha256"] == segment["repeated_sha256"] for segment in segments)


def test_only_a_worker_that_was_heard_of_is_readmitted(stack: Stack) -> None:
    worker, *_ = [w for w in stack.json("operator", "jobs", "workers") if "video_codecs" in w["capabilities"]]
    unknown = stack.kino("operator", "jobs", "readmit", "workers/nobody")

    assert stack.json("operator", "jobs", "readmit", worker["name"]) == {
        "worker": worker["name"],
        "quarantine": "none",
    }
    assert (unknown.returncode, "workers/nobody was never heard of." in unknown.stderr) == (1, True)
