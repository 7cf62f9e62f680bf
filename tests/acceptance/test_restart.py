"""One data folder over several lives of the suite: stopped, killed in mid-encode, started twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.suite_process import SuiteDidNotStart, process_tree, running_suite, start_suite
from services.media.testfilm import FilmSpec
from tests.support.stack import People, film_file, run_kino

GIVE_UP_S = 120


@pytest.fixture(scope="module")
def port() -> int:
    """One for all lives: sessions belong to an address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lives")


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within half a minute."""
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not alive


def seen(people: People) -> dict[str, Any]:
    """Everything two people see."""
    return {
        "who": people.json("viewer", "whoami"),
        "titles": people.json("viewer", "titles", "list"),
        "history": people.json("viewer", "history", "list"),
        "search": [hit["title"] for hit in people.json("viewer", "search", "shrot")],
        "invoices": people.json("viewer", "billing", "invoices"),
        "subscriptions": people.json("viewer", "billing", "subscriptions"),
        "plans": people.json("operator", "billing", "plans"),
        "ledger": people.json("operator", "billing", "ledger"),
        "users": people.json("operator", "users", "list"),
        "jobs": people.json("operator", "jobs", "list"),
    }


def test_a_second_start_finds_everything_as_it_was(folder: Path, port: int, short_film: Path) -> None:
    with running_suite(folder / "data", port=port) as first:
        people = People(suite=first, folder=folder)
        people.populate()
        title = people.ingest(short_film, "Short")
        people.json("viewer", "play", title, "--offset", "1", "--until", "2.5")
        before = seen(people)
    with running_suite(folder / "data", port=port) as second:
        again = People(suite=second, folder=folder)
        after = seen(again)
        resumed = again.json("viewer", "play", title, "--until", "3", "--no-history")

    assert after == before
    assert before["search"] == [title]
    assert [view["title"] for view in before["history"]] == [title]
    assert second.claim_token is None
    assert resumed["offset"] == "0:00:02.469"


def test_a_kill_in_the_middle_of_an_encode_loses_nothing(folder: Path, port: int) -> None:
    spec = FilmSpec(seconds=Fraction(20), width=640, height=360, cuts=(5.4, 11.2), loud=None)
    film = film_file(folder / "killed.mp4", spec)
    with running_suite(folder / "data", port=port) as first:
        people = People(suite=first, folder=folder)
        begun = people.json("operator", "ingest", str(film), "--title", "Killed", "--no-watch")
        wait_until_encoding(people, begun["job"])
        tree = first.tree()
        first.process.send_signal(signal.SIGKILL)
        assert gone(tree)
    with running_suite(folder / "data", port=port) as second:
        again = People(suite=second, folder=folder)
        done = again.kino("operator", "jobs", "watch", begun["job"])
        title = again.json("operator", "titles", "show", begun["title"])
        played = again.json("viewer", "play", begun["title"], "--offset", "0", "--no-history")

    assert done.returncode == 0, done.stderr
    assert title["state"] == "STATE_COMPLETE"
    assert title["duration"] == f"{spec.timeline.ns(spec.timeline.frame_count) / 1e9:.9f}s"
    assert played["frame_number"] == 0


def wait_until_encoding(people: People, job: str) -> None:
    """Wait until some tasks are done and others are not."""
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        [found] = [item for item in people.json("operator", "jobs", "list") if item["name"] == job]
        assert found["state"] in ("STATE_PENDING", "STATE_RUNNING"), found
        if found.get("done_task_count", 0) >= 3:
            return
    raise AssertionError(f"{job} did not begin to encode")


def test_a_second_instance_on_the_same_folder_is_refused_in_one_sentence(folder: Path, port: int) -> None:
    with running_suite(folder / "data", port=port) as first:
        done = run_kino("up", "--data-dir", str(folder / "data"), "--port", "0")

    assert done.returncode == 1
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith(
        f"kino: Kino already runs on {folder / 'data'} (process {first.process.pid}): "
    )
    assert "KINO_DATA_DIR" in sentence


def test_a_port_in_use_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        done = run_kino("up", "--data-dir", str(tmp_path / "data"), "--port", str(number))

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"kino: Port {number} is in use on 127.0.0.1: stop what listens there, or choose another with --port."
    ]


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder nobody may write: for root one of the kernel's, which are."""
    if os.geteuid() == 0:
        yield Path("/sys/kernel/kino")
        return
    tmp_path.chmod(0o500)
    yield tmp_path / "data"
    tmp_path.chmod(0o700)


def test_a_folder_that_can_not_be_written_is_refused_in_one_sentence(unwritable: Path) -> None:
    done = run_kino("up", "--data-dir", str(unwritable), "--port", "0")

    assert done.returncode == 1
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith(f"kino: The data folder {unwritable} can't be written (")
    assert sentence.endswith("): set KINO_DATA_DIR to a folder that can.")


def test_a_suite_that_can_not_start_is_named_to_who_started_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SuiteDidNotStart, match=r"Port \d+ is in use"):
            start_suite(tmp_path / "data", port=taken.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process_and_no_port(folder: Path, port: int, number: signal.Signals) -> None:
    suite = start_suite(folder / "data", port=port)
    tree = suite.tree()
    names = sorted(process.name() for process in tree)
    suite.process.send_signal(number)
    code = suite.process.wait(60)

    assert code == 0
    assert len(tree) >= 4, names
    assert gone(tree)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_whoever_started_the_suite_takes_it_along_when_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from cli.suite_process import start_suite\n"
        "suite = start_suite(pathlib.Path(sys.argv[1]))\n"
        "print(suite.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "data")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        tree = process_tree(int(parent.stdout.readline()))
        parent.kill()

    assert len(tree) >= 4
    assert gone(tree)


def test_doctor_finds_every_service_of_a_running_suite_well(folder: Path, port: int) -> None:
    with running_suite(folder / "data", port=port) as suite:
        people = People(suite=suite, folder=folder)
        # Workers come a moment after the page, and the gateway checks them every two seconds.
        deadline = time.monotonic() + GIVE_UP_S
        healthy = people.kino("operator", "--json", "doctor", "--data-dir", str(folder / "data"))
        while healthy.returncode and time.monotonic() < deadline:
            healthy = people.kino("operator", "--json", "doctor", "--data-dir", str(folder / "data"))

    assert healthy.returncode == 0, healthy.stdout
