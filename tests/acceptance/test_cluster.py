"""The demo on real engines, as `make demo PROFILE=cluster` runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from tests.acceptance.test_demo import STEPS, command_line
from tests.support.stack import ROOT

LOSSES = [
    "lose an encoder",
    "lose a scheduler",
    "lose the PostgreSQL primary",
    "lose a playback node",
    "lose a Cassandra node",
]
#: In the folders of its processes, and of no other test's.
OURS = ("kino-cluster-", "kino-engines-", "kino-postgres-a-")


@pytest.mark.engine
def test_on_real_engines_the_film_completes_and_plays_though_nodes_are_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.cluster_demo", "--json"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-20_000:]
    said = json.loads(done.stdout.splitlines()[-1])
    steps = [step["step"] for step in said["steps"]]
    assert said["ok"] is True
    assert set(steps) == {
        *STEPS[1:],
        *LOSSES,
        "engines",
        "services",
        "doctor",
        "acknowledged so far",
        "all acknowledged",
    }
    left = [command for command in map(command_line, psutil.process_iter()) if any(map(command.count, OURS))]
    assert left == []
