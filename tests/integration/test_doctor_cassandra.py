from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cli.doctor_cassandra import examine_cassandra
from services.history.cassandra import Cassandra, connect
from services.history.errors import HistoryMisconfigured
from services.runtime.errors import Unavailable
from services.runtime.settings import Settings
from tests.engines.cassandra import CassandraCluster, cassandra_settings
from tests.engines.process import free_port, wait_until

pytestmark = pytest.mark.engine


async def found(settings: Settings) -> dict[str, tuple[str, str]]:
    return {one.check: (one.state, one.sentence) for one in await examine_cassandra(settings)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A node that asks for a login, and the settings of its superuser."""
    cluster = CassandraCluster(tmp_path_factory.mktemp("guarded"), password=True)
    login = {"cassandra_username": "cassandra", "cassandra_password": "cassandra"}
    settings = cassandra_settings(cluster.hosts, "kino", replication=1) | login
    try:
        cluster.start()
        wait_until(lambda: logs_in(Settings(**settings)), 60, "the superuser is made")
        yield settings
    finally:
        cluster.stop()


def logs_in(settings: Settings) -> bool:
    try:
        connect(settings).cluster.shutdown()
    except (HistoryMisconfigured, Unavailable):
        return False
    return True


async def test_history_in_sql_is_none_of_its_business() -> None:
    assert await found(Settings()) == {}


async def test_a_cluster_is_looked_at_before_and_after_history_made_its_tables(
    cassandra: dict[str, Any],
) -> None:
    settings = Settings(**cassandra)
    name = settings.cassandra_keyspace
    fresh = await found(settings)
    assert fresh["cassandra"] == ("ok", "datacenter1 answers, on 1 node.")
    assert fresh["cassandra version"] == ("ok", "Cassandra is 5.0.9.")
    assert fresh["cassandra clock"][0] == fresh["cassandra rights"][0] == "ok"
    assert fresh["cassandra keyspace"] == (
        "ok",
        f"There is no {name} yet: history makes it when it starts.",
    )
    engine = Cassandra(settings)
    await engine.open()
    made = await found(settings)
    assert made["cassandra schema"] == ("ok", f"{name} has the newest schema, 1.")
    assert made["cassandra keyspace"][0] == "warning"
    await engine.run("INSERT INTO schema_versions (service, version) VALUES ('history', 99)")
    assert (await found(settings))["cassandra schema"][0] == "wrong"
    await engine.close()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"cassandra_datacenter": "moon"}, "set KINO_CASSANDRA_DATACENTER to one of datacenter1"),
        ({"cassandra_hosts": []}, "set KINO_CASSANDRA_HOSTS"),
        ({"cassandra_hosts": [f"127.0.0.1:{free_port()}"]}, "start Cassandra, or correct"),
    ],
)
async def test_what_is_wrong_is_said_with_what_to_do(
    cassandra: dict[str, Any], wrong: dict[str, Any], sentence: str
) -> None:
    findings = await found(Settings(**cassandra | wrong))
    assert findings["cassandra"][0] == "wrong"
    assert sentence in findings["cassandra"][1]


async def test_logins_and_rights_are_looked_at(guarded: dict[str, Any]) -> None:
    assert {state for state, _ in (await found(Settings(**guarded))).values()} == {"ok"}
    for stranger in ({"cassandra_password": "guessed"}, {"cassandra_username": ""}):
        assert (await found(Settings(**guarded | stranger)))["cassandra"] == (
            "wrong",
            "Cassandra refuses the login: set KINO_CASSANDRA_USERNAME and KINO_CASSANDRA_PASSWORD.",
        )
    session = connect(Settings(**guarded))
    session.execute("CREATE ROLE kino WITH PASSWORD = 'secret' AND LOGIN = true")
    kino = Settings(**guarded | {"cassandra_username": "kino", "cassandra_password": "secret"})
    state, sentence = (await found(kino))["cassandra rights"]
    assert (state, sentence.count("GRANT")) == ("wrong", 3)
    with pytest.raises(HistoryMisconfigured, match="refuses what Kino needs"):
        await Cassandra(kino).open()
    for grant in sentence.partition("superuser, ")[2].split(";")[:3]:
        session.execute(grant)
    session.cluster.shutdown()
    assert (await found(kino))["cassandra rights"][0] == "ok"
    engine = Cassandra(kino)
    await engine.open()
    await engine.close()
