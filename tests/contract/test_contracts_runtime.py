from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FileDescriptor

from services.runtime.access import Access, access_of
from services.runtime.errors import ValidationFailed
from services.runtime.validation import validate

STUBS = Path(__file__).parents[2] / "gen" / "python"
FILES: list[FileDescriptor] = [
    import_module(str(path.relative_to(STUBS).with_suffix("")).replace("/", ".")).DESCRIPTOR
    for path in sorted(STUBS.glob("kino/**/*_pb2.py"))
]
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]


def messages(of: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    nested = of.message_types_by_name if isinstance(of, FileDescriptor) else of.nested_types_by_name
    for descriptor in nested.values():
        if not descriptor.GetOptions().map_entry:
            yield descriptor
            yield from messages(descriptor)


@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_says_who_may_call_it(method: str) -> None:
    assert access_of(method) in Access


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_rules_of_every_message_compile(file: FileDescriptor) -> None:
    for descriptor in messages(file):
        with suppress(ValidationFailed):
            validate(message_factory.GetMessageClass(descriptor)())


def test_there_are_contracts_to_check() -> None:
    assert len(METHODS) > 40
    assert sum(1 for file in FILES for _ in messages(file)) > 100
