"""Settings of a deployment: environment `KINO_…`, then `kino.toml`, then defaults.

One class serves validation, types and the reference table (`Settings.describe`).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from services.runtime.errors import FailedPrecondition

GIB = 1 << 30


class SettingsError(FailedPrecondition):
    """{problem}"""

    reason = "SETTINGS_INVALID"


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "kino"


class Settings(BaseSettings):
    """What can be set. Each field is `KINO_<NAME>` in the environment and `<name>` in `kino.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="KINO_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder that holds all state: databases, objects, keys.",
    )
    bind: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    grpc_bind: str = Field(
        default="127.0.0.1", description="Address this process's gRPC server listens on, behind the gateway."
    )
    gateway_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the gateway; 0 picks a free one."
    )
    grpc_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of this process's gRPC server behind the gateway; 0 picks one.",
    )
    stream_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of media, for the gateway before playback and an edge's viewers; 0 picks one.",
    )
    tls_port: int = Field(
        default=0, ge=0, le=65535, description="Port for native clients over TLS; 0 picks one."
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="Certificate chain (PEM): native clients may then call this process directly.",
    )
    tls_key: Path | None = Field(default=None, description="Private key (PEM) of `tls_certificate`.")
    workers: int = Field(default=2, ge=0, le=256, description="Encoder worker processes `kino up` starts.")
    worker_id: str = Field(
        default="",
        # Before that of a preprocessor stands what it is: 63 characters in all.
        pattern="^[a-z0-9-]{0,50}$",
        description="Id of a worker, the same after a restart; default: host name and pid.",
    )
    worker_slots: int = Field(
        default=1, ge=1, le=1024, description="Tasks an encoder worker does at the same time."
    )
    video_codecs: list[Literal["h264", "hevc", "av1"]] = Field(
        default=["h264", "av1"],
        min_length=1,
        description="Codecs that pictures are encoded in. Every device plays the first.",
    )
    scratch_dir: Path | None = Field(
        default=None, description="Folder in which workers work; default: the system's temporary folder."
    )
    scratch_bytes: int = Field(
        default=4 * GIB,
        ge=1,
        description="The most that a worker may write there; a task that may need more waits, or goes to "
        "another worker.",
    )
    encode_quality: bool = Field(
        default=True, description="Measure the quality of each segment of pictures, by VMAF."
    )
    endpoints: dict[str, str] = Field(
        default_factory=dict,
        description="Where services run that aren't in this process: name to `host:port`, several by commas.",
        examples=['{"catalog": "10.0.0.7:9000,10.0.0.8:9000"}'],
    )
    sql_url: str = Field(
        default="",
        description="SQL database of every service, `{service}` standing for its name; "
        "default: a SQLite file for each in `data_dir`.",
        examples=["postgresql+psycopg://kino:secret@/kino_{service}?host=a:5432&host=b:5432"],
    )
    sql_urls: dict[str, str] = Field(
        default_factory=dict,
        description="SQL database of a service by name, where it is another than `sql_url` says.",
        examples=['{"billing": "postgresql+psycopg://db/billing"}'],
    )
    sql_synchronous: bool = Field(
        default=False,
        description="Refuse changes of money and accounts while PostgreSQL has no synchronous standby.",
    )
    history_store: Literal["sql", "cassandra"] = Field(
        default="sql", description="Where viewing history is kept."
    )
    cassandra_hosts: list[str] = Field(
        default_factory=list, description="Nodes to find the cluster by, `host:port`."
    )
    cassandra_keyspace: str = Field(
        default="kino", pattern="^[a-z][a-z0-9_]{0,47}$", description="Keyspace of Kino's tables."
    )
    cassandra_datacenter: str = Field(
        default="datacenter1", description="Datacenter whose nodes are asked, with LOCAL_QUORUM."
    )
    cassandra_replication: int = Field(
        default=3, ge=1, le=9, description="Copies of each row, where Kino makes the keyspace itself."
    )
    cassandra_username: str = Field(default="", description="User of Cassandra; empty: no authentication.")
    cassandra_password: SecretStr = Field(default=SecretStr(""), description="Password of that user.")
    objects_store: Literal["local", "s3"] = Field(default="local", description="Where objects are kept.")
    s3_url: str = Field(
        default="",
        description="Address of the S3 service, addressed path-style.",
        examples=["http://s3:9000"],
    )
    s3_bucket: str = Field(default="kino", description="Bucket of all objects.")
    s3_region: str = Field(default="us-east-1", description="Region that requests are signed for.")
    s3_access_key: str = Field(default="", description="Access key of S3.")
    s3_secret_key: SecretStr = Field(default=SecretStr(""), description="Secret key of S3.")
    s3_copies_bytes: int = Field(
        default=64 * GIB,
        ge=0,
        description="Disk in `data_dir` for copies of the sources that a worker opens; S3 alone needs them.",
    )
    search_store: Literal["embedded", "elasticsearch"] = Field(
        default="embedded", description="Where the search index is kept."
    )
    elasticsearch_urls: list[str] = Field(
        default_factory=list, description="Nodes of Elasticsearch.", examples=['["http://es:9200"]']
    )
    elasticsearch_index: str = Field(
        default="kino-titles",
        pattern="^[a-z0-9][a-z0-9_-]{0,99}$",
        description="Alias of the index; the indexes behind it are named after it.",
    )
    elasticsearch_api_key: SecretStr = Field(
        default=SecretStr(""), description="API key of Elasticsearch; empty: no authentication."
    )
    scheduler_id: str = Field(
        default="s0",
        pattern="^s[0-9]{1,3}$",
        description="Executor of workflows: its own for each scheduler that runs, kept over a restart. "
        "A second process with the same id waits as its standby.",
    )
    tasks_per_user: int = Field(
        default=0,
        ge=0,
        description="Encoding tasks of one user's jobs that run at the same time; 0: any number.",
    )
    objects_dir: Path | None = Field(
        default=None, description="Folder of the object store; default: `objects` in the data folder."
    )
    keys_dir: Path | None = Field(
        default=None, description="Folder of the deployment's secrets; default: `keys` in the data folder."
    )
    upload_max_bytes: int = Field(default=64 * GIB, ge=1, description="Greatest size of one uploaded file.")
    upload_quota_bytes: int = Field(
        default=256 * GIB, ge=1, description="Greatest sum of one user's unfinished and unpublished uploads."
    )
    upload_part_bytes: int = Field(
        default=4 << 20, ge=64 << 10, le=16 << 20, description="Greatest size of one part of an upload."
    )
    lease_ttl_s: float = Field(
        default=60.0, ge=20, le=3600, description="How long a playback that is silent keeps its stream."
    )
    staff_streams: int = Field(
        default=10, ge=1, le=100, description="Streams of publishers and operators, who need no plan."
    )
    region: str = Field(
        default="",
        pattern="^([A-Z]{2})?$",
        description="Region of viewers whose own isn't told (ISO 3166-1 alpha-2); empty: not known.",
    )
    region_header: str = Field(
        default="",
        pattern="^[a-z0-9-]{0,64}$",
        description="Request header in which the gateway tells a viewer's region; empty: nobody is believed.",
        examples=["x-kino-region"],
    )
    playback_cache_bytes: int = Field(
        default=64 << 20, ge=1 << 20, description="Memory for segments that a playback node keeps at hand."
    )
    playback_stale_s: float = Field(
        default=600.0,
        ge=0,
        le=30 * 86_400,
        description="How long a playback node serves titles as catalog last told them while catalog can't be "
        "reached; 0: not at all. A node with a disk does so after its own restart too.",
    )
    edge_disk_bytes: int = Field(
        default=0,
        ge=0,
        description="Disk for the segments an edge keeps; 0: none, and 10 GiB for `kino serve edge`.",
    )
    edge_dir: Path | None = Field(
        default=None, description="Folder of those segments; default: `edge` in the data folder."
    )
    edge_fill_hours: str = Field(
        default="",
        pattern="^(([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9])?$",
        description="Hours (UTC) in which an edge fetches what its plan says; empty: it keeps only what is "
        "asked for.",
        examples=["02:00-06:00"],
    )
    edge_fill_bytes_per_s: int = Field(
        default=12_500_000, ge=1, description="The most that an edge reads from the origin for its plan."
    )
    edge_address: str = Field(
        default="",
        pattern="^(https?://[A-Za-z0-9.-]{1,200}:[0-9]{1,5})?$",
        description="Where native clients reach this edge: viewers are sent there; empty: nobody is.",
        examples=["https://edge-1.example.org:9443"],
    )
    edge_streams: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Playbacks this edge is built for: no more are sent to it, and titles go to it in "
        "proportion.",
    )
    unary_deadline_s: float = Field(
        default=30.0,
        gt=0,
        description="Deadline of a unary call whose client set none.",
    )
    drain_s: float = Field(
        default=0.2, ge=0, description="Wait between reporting NOT_SERVING and refusing calls at shutdown."
    )
    grace_s: float = Field(default=5.0, ge=0, description="Time calls in flight get to finish at shutdown.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: console on a terminal, JSON lines elsewhere."
    )

    @property
    def objects_folder(self) -> Path:
        """Where `LocalObjects` keeps its files."""
        return self.objects_dir or self.data_dir / "objects"

    @property
    def keys_folder(self) -> Path:
        """Where the deployment's keys are."""
        return self.keys_dir or self.data_dir / "keys"

    def database_url(self, service: str) -> str:
        """The database of `service` as a SQLAlchemy URL."""
        shared = self.sql_url.replace("{service}", service)
        own = f"sqlite:///{self.data_dir.absolute() / 'sql' / service}.db"
        return self.sql_urls.get(service) or shared or own

    @classmethod
    def describe(cls) -> list[tuple[str, str, str, str]]:
        """One row per setting: environment variable, type, default, meaning."""
        rows = []
        for name, info in cls.model_fields.items():
            annotation = info.annotation
            kind = (
                annotation.__name__ if type(annotation) is type else str(annotation).replace("pathlib.", "")
            )
            default = "" if info.default_factory or info.default is None else str(info.default)
            rows.append(
                (f"KINO_{name.upper()}", kind.replace("typing.", ""), default, info.description or "")
            )
        return rows


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """The settings of this process; `overrides` win over environment and file.

    `config` is the file to read; default: `KINO_CONFIG`, else `kino.toml` in the working folder, if there.
    Raises `SettingsError` with one sentence that names the setting.
    """
    path = config or (Path(os.environ["KINO_CONFIG"]) if "KINO_CONFIG" in os.environ else None)
    required, path = path is not None, path or Path("kino.toml")
    from_file = _read_toml(path, required=required)
    try:
        from_environment = EnvSettingsSource(Settings)()
        return Settings(**{**from_file, **from_environment, **overrides})
    except (ValidationError, SourceError) as error:
        raise SettingsError(_sentence(error)) from None


def _read_toml(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise SettingsError(f"The settings file {path} does not exist.") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}.") from None
    unknown = sorted(values.keys() - Settings.model_fields.keys())
    if unknown:
        known = ", ".join(sorted(Settings.model_fields))
        raise SettingsError(
            f"{path} sets {', '.join(unknown)}, which is no setting of Kino; known are: {known}."
        )
    return values


def _sentence(error: ValidationError | SourceError) -> str:
    if isinstance(error, SourceError):
        return f"The environment is wrong: {error}."
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    return f"The setting {name} (KINO_{name.upper().replace('.', '__')}) is wrong: {first['msg']}."
