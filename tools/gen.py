"""Generate gen/ from proto/: typed Python stubs, TypeScript stubs and the gateway's descriptor set.

`gen.py` updates gen/ in place, touching only files that differ; `gen.py --check` changes nothing and exits 1
naming every file that is stale, missing or left over.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "proto"
THIRD_PARTY = ROOT / "third_party" / "proto"
GEN = ROOT / "gen"
#: What the generator owns below gen/; the packages' own manifests lie beside it and are written by hand.
OWNED = ("python/kino", "python/buf", "web/kino", "web/buf", "web/google", "descriptor")
#: protovalidate imports this module but ships none, so it is generated with the contracts.
VALIDATE = "buf/validate/validate.proto"
#: No contract imports it: it travels packed in a status. JavaScript clients have no package that carries it.
ERROR_DETAILS = "google/rpc/error_details.proto"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when gen/ is stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        changed = differences(fresh)
        if not check:
            apply(fresh, changed)
    for path in changed:
        print(f"{'stale' if check else 'wrote'}: gen/{path}")
    if check and changed:
        print("gen/ does not match proto/: run `make gen` and commit the result.", file=sys.stderr)
        return 1
    return 0


def generate(out: Path) -> None:
    """Write everything the contracts give into `out`, laid out as gen/."""
    contracts = sorted(p.relative_to(CONTRACTS).as_posix() for p in CONTRACTS.rglob("*.proto"))
    for folder in ("python", "web", "descriptor"):
        (out / folder).mkdir()
    descriptor = out / "descriptor" / "kino.binpb"
    # The gateway writes errors as JSON only when it knows the types packed in them.
    protoc([*contracts, ERROR_DETAILS], "--include_imports", f"--descriptor_set_out={descriptor}")
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor.read_bytes()).file
    python, scripts = out / "python", Path(sys.executable).parent
    protoc(
        [*contracts, VALIDATE],
        f"--python_out={python}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--mypy_out=quiet:{python}",
    )
    (python / "kino" / "py.typed").touch()
    protoc(
        [f.name for f in files if f.service],
        f"--grpc_python_out={python}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        # Services and clients are grpc.aio only, so the synchronous signatures would only hide mistakes.
        f"--mypy_grpc_out=quiet,only_async:{python}",
    )
    protoc(
        # @bufbuild/protobuf brings google.protobuf itself.
        sorted(f.name for f in files if not f.name.startswith("google/protobuf/")),
        f"--plugin=protoc-gen-es={ROOT / 'node_modules' / '.bin' / 'protoc-gen-es'}",
        f"--es_out={out / 'web'}",
        # JavaScript with declarations serves the page's bundler and plain Node alike.
        "--es_opt=target=js+dts,import_extension=js",
    )


def protoc(files: Iterable[str], *options: str) -> None:
    imports = f"-I{CONTRACTS}", f"-I{THIRD_PARTY}"
    command = [sys.executable, "-m", "grpc_tools.protoc", *imports, *options, *files]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("protoc refused the contracts; its message is above.")


def differences(fresh: Path) -> list[str]:
    """Paths below gen/ whose bytes differ between `fresh` and the tree, on either side."""
    return sorted(p for p in listing(fresh) | listing(GEN) if read(fresh / p) != read(GEN / p))


def listing(base: Path) -> set[str]:
    found = (path for owned in OWNED for path in (base / owned).rglob("*"))
    return {p.relative_to(base).as_posix() for p in found if p.is_file() and "__pycache__" not in p.parts}


def read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def apply(fresh: Path, changed: Iterable[str]) -> None:
    for path in changed:
        content, target = read(fresh / path), GEN / path
        if content is None:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # Replaced in one step: another process may be importing the stubs.
        part = target.with_name(f".{target.name}.part")
        part.write_bytes(content)
        os.replace(part, target)


if __name__ == "__main__":
    raise SystemExit(main())
