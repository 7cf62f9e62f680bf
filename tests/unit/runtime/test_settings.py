from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.runtime.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("KINO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "kino.toml"
    path.write_text(text)
    return path


def test_arguments_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(tmp_path, "gateway_port = 1\nworkers = 1\nupload_part_bytes = 100000")
    monkeypatch.setenv("KINO_GATEWAY_PORT", "2")
    monkeypatch.setenv("KINO_WORKERS", "2")
    made = load_settings(gateway_port=3)
    assert (made.gateway_port, made.workers, made.upload_part_bytes) == (3, 2, 100_000)


def test_a_setting_by_service_can_come_from_one_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KINO_SQL_URLS__BILLING", "postgresql+psycopg://db/billing")
    made = load_settings(data_dir=tmp_path)
    assert made.database_url("billing") == "postgresql+psycopg://db/billing"
    assert made.database_url("catalog") == f"sqlite:///{tmp_path}/sql/catalog.db"


def test_everything_lies_in_the_data_folder_unless_set(tmp_path: Path) -> None:
    made = Settings(data_dir=tmp_path)
    assert (made.objects_folder, made.keys_folder) == (tmp_path / "objects", tmp_path / "keys")
    assert Settings(data_dir=tmp_path, objects_dir=Path("/o")).objects_folder == Path("/o")


def test_an_unknown_key_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    toml(tmp_path, "gatway_port = 1")
    with pytest.raises(SettingsError, match="sets gatway_port, which is no setting of Kino"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gateway_port = 70000", r"gateway_port \(KINO_GATEWAY_PORT\) is wrong: .*65535"),
        ("workers = 'many'", r"workers \(KINO_WORKERS\) is wrong"),
        ("workers = ", "cannot be read"),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    toml(tmp_path, text)
    with pytest.raises(SettingsError, match=sentence):
        load_settings()


def test_a_variable_that_cannot_be_read_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINO_SQL_URLS", "{not json")
    with pytest.raises(SettingsError, match="sql_urls"):
        load_settings()


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINO_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(SettingsError, match=r"other\.toml does not exist"):
        load_settings()
    with pytest.raises(SettingsError, match=r"mine\.toml does not exist"):
        load_settings(tmp_path / "mine.toml")


def test_the_reference_describes_every_setting() -> None:
    rows = Settings.describe()
    assert [row[0] for row in rows] == [f"KINO_{name.upper()}" for name in Settings.model_fields]
    assert all(meaning.endswith(".") for _, _, _, meaning in rows)
    assert ("KINO_GATEWAY_PORT", "int", "8080", "Port of the gateway; 0 picks a free one.") in rows
