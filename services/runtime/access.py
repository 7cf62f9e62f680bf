"""Who may call a method: the rule its contract declares with the option `(kino.common.v1.access)`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from services.runtime.auth import OPERATOR, PUBLISHER, VIEWER, Principal, RoleMissing
from services.runtime.errors import PermissionDenied, Unauthenticated

_OPTION = "kino.common.v1.access"
_OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")


class ServiceOnly(PermissionDenied):
    """Only Kino's own services may call this."""

    reason = "SERVICE_ONLY"


class Access(enum.Enum):
    """The values of `kino.common.v1.Access`, without their prefix."""

    PUBLIC = "PUBLIC"
    VIEWER = VIEWER
    PUBLISHER = PUBLISHER
    OPERATOR = OPERATOR
    SERVICE = "SERVICE"
    LEASE = "LEASE"


def access_of(path: str) -> Access:
    """The rule of a method by its path (`/kino.catalog.v1.CatalogService/GetTitle`).

    Raises `ValueError` when the contract declares none: such a method must not be served.
    """
    service, _, method = path.strip("/").rpartition("/")
    if service in _OPEN_SERVICES:
        return Access.PUBLIC
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise ValueError(f"{service} is in no imported contract") from None
    if method not in descriptor.methods_by_name:
        raise ValueError(f"{path} is in no contract")
    return _declared(descriptor.methods_by_name[method])


def check_declared(services: Iterable[str]) -> None:
    """Refuse to serve a contract with a method that declares no rule. Raises `ValueError` naming it."""
    for service in services:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            _declared(method)


def check_allowed(access: Access, caller: Principal | None) -> None:
    """Raise `Unauthenticated`, `RoleMissing` or `ServiceOnly` unless the caller may pass.

    LEASE methods pass here: the handler opens the lease in the request.
    """
    if access in (Access.PUBLIC, Access.LEASE):
        return
    if caller is None:
        raise Unauthenticated()
    if caller.is_service:
        return
    if access is Access.SERVICE:
        raise ServiceOnly()
    # Any signed-in user is a viewer, whatever roles the token lists.
    if access is not Access.VIEWER and not caller.has_role(access.value):
        raise RoleMissing(access.value)


def _declared(method: MethodDescriptor) -> Access:
    try:
        option: Any = descriptor_pool.Default().FindExtensionByName(_OPTION)
    except KeyError:
        raise ValueError(f"{method.full_name} declares no ({_OPTION})") from None
    number: int = method.GetOptions().Extensions[option]
    name = option.enum_type.values_by_number[number].name.removeprefix("ACCESS_")
    if name == "UNSPECIFIED":
        raise ValueError(f"{method.full_name} declares no ({_OPTION})")
    return Access[name]
