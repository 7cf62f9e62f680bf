"""The deployment's secrets on disk: made at the first start, shared by all its processes.

`internal.key` is 32 random bytes from which sealing and service-token keys are derived; `signing.pem` is
identity's ES256 key, and `jwks.json` its public half for the gateway.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_INTERNAL_BYTES = 32


def derive(internal_key: bytes, info: str) -> bytes:
    """A 32-byte key for one purpose, by HKDF-SHA256 (RFC 5869); other `info`, unrelated key."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=f"kino {info}".encode()).derive(
        internal_key
    )


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The secrets of one deployment; never printed."""

    #: 32 random bytes every process of the deployment shares.
    internal: bytes = field(repr=False)
    #: Identity's ES256 private key, PEM (PKCS 8).
    signing_pem: bytes = field(repr=False)
    #: The public halves as a JSON Web Key Set (RFC 7517).
    jwks: dict[str, Any]
    #: The file that holds `jwks`, for the gateway.
    jwks_path: Path


def open_keys(folder: Path) -> Keys:
    """Read the keys in `folder`, making what is missing; safe when several processes start together."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    internal = _read_or_create(folder / "internal.key", lambda: os.urandom(_INTERNAL_BYTES))
    if len(internal) != _INTERNAL_BYTES:
        raise ValueError(f"{folder / 'internal.key'} must hold {_INTERNAL_BYTES} bytes, not {len(internal)}")
    signing_pem = _read_or_create(folder / "signing.pem", _new_signing_pem)
    jwks = public_jwks(signing_pem)
    path = folder / "jwks.json"
    text = json.dumps(jwks, indent=1).encode()
    if not path.exists() or path.read_bytes() != text:
        _write(path, text, mode=0o644).replace(path)
        _sync_folder(folder)
    return Keys(internal=internal, signing_pem=signing_pem, jwks=jwks, jwks_path=path)


def public_jwks(signing_pem: bytes) -> dict[str, Any]:
    """The public half of a signing key as a key set; `kid` is its thumbprint (RFC 7638)."""
    from joserfc.jwk import ECKey

    key = ECKey.import_key(signing_pem)
    public = key.as_dict(private=False)
    return {"keys": [{**public, "kid": key.thumbprint(), "alg": "ES256", "use": "sig"}]}


def _new_signing_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_or_create(path: Path, make: Any) -> bytes:
    """The file's bytes; when it is missing, whoever links first wins and all read the same."""
    if not path.exists():
        temporary = _write(path, make(), mode=0o600)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
    return path.read_bytes()


def _write(path: Path, data: bytes, *, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
