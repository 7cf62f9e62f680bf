from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from services.runtime.access import Access, ServiceOnly, check_allowed
from services.runtime.auth import (
    AUDIENCE,
    SERVICE_ISSUER,
    USER_ISSUER,
    Kind,
    NotYours,
    Principal,
    RoleMissing,
    ServiceTokens,
    TokenExpired,
    TokenInvalid,
    TokenSigner,
    TokenVerifier,
    maybe_principal,
    principal,
    require_role,
    require_user,
    set_principal,
)
from services.runtime.clock import ManualClock
from services.runtime.errors import Unauthenticated
from services.runtime.keys import derive, public_jwks

INTERNAL = bytes(range(32))
SIGNING_KEY = ECKey.generate_key("P-256")
PEM = SIGNING_KEY.as_pem(private=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verifier(clock: ManualClock) -> TokenVerifier:
    return TokenVerifier(INTERNAL, public_jwks(PEM), clock)


@pytest.fixture(autouse=True)
def _nobody() -> Iterator[None]:
    set_principal(None)
    yield
    set_principal(None)


def user(subject: str = "users/ann", *roles: str) -> Principal:
    return Principal(kind=Kind.USER, subject=subject, roles=frozenset(roles))


SERVICE = Principal(kind=Kind.SERVICE, subject="services/playback")


def test_a_user_token_says_who_and_what_until_it_expires(clock: ManualClock, verifier: TokenVerifier) -> None:
    token, expires = TokenSigner(PEM, clock).sign("users/ann", frozenset({"publisher"}), "sessions/1")
    assert expires == clock.now() + timedelta(minutes=15)
    assert verifier.verify(token) == Principal(
        kind=Kind.USER, subject="users/ann", roles=frozenset({"publisher"}), session="sessions/1"
    )
    clock.advance(timedelta(minutes=15))
    with pytest.raises(TokenExpired):
        verifier.verify(token)


def test_the_gateway_can_check_a_user_token_with_the_public_keys_alone(clock: ManualClock) -> None:
    token, _ = TokenSigner(PEM, clock).sign("users/ann", frozenset(), "")
    header = jwt.decode(token, ECKey.import_key(PEM), algorithms=["ES256"]).header
    (key,) = public_jwks(PEM)["keys"]
    assert (header["alg"], header["kid"]) == ("ES256", key["kid"])
    assert "d" not in key


def test_a_service_token_is_renewed_at_half_its_life(clock: ManualClock, verifier: TokenVerifier) -> None:
    tokens = ServiceTokens(INTERNAL, clock)
    first = tokens.token("playback")
    assert verifier.verify(first) == SERVICE
    assert tokens.token("playback") == first
    assert tokens.token("history") != first
    clock.advance(timedelta(minutes=2, seconds=30))
    assert tokens.token("playback") != first
    clock.advance(timedelta(minutes=2, seconds=30))
    with pytest.raises(TokenExpired):
        verifier.verify(first)


def claims(clock: ManualClock, **changed: Any) -> dict[str, Any]:
    fresh = {
        "iss": USER_ISSUER,
        "aud": AUDIENCE,
        "sub": "users/ann",
        "roles": [],
        "exp": int(clock.now().timestamp()) + 60,
    }
    return {key: value for key, value in {**fresh, **changed}.items() if value is not None}


def signed(values: dict[str, Any], key: ECKey = SIGNING_KEY) -> str:
    return jwt.encode({"alg": "ES256", "kid": SIGNING_KEY.thumbprint()}, values, key)


def test_the_claims_the_next_test_breaks_are_good(clock: ManualClock, verifier: TokenVerifier) -> None:
    assert verifier.verify(signed(claims(clock))) == user()


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "other-api"},
        {"aud": None},
        {"sub": "services/playback"},
        {"sub": None},
        {"sub": 7},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"roles": "operator"},
    ],
    ids=str,
)
def test_a_well_signed_token_with_wrong_claims_is_refused(
    changed: dict[str, Any], clock: ManualClock, verifier: TokenVerifier
) -> None:
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(claims(clock, **changed)))


def test_a_token_of_another_key_is_refused(clock: ManualClock, verifier: TokenVerifier) -> None:
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(claims(clock), ECKey.generate_key("P-256")))


def test_the_public_key_does_not_pass_as_a_shared_secret(clock: ManualClock, verifier: TokenVerifier) -> None:
    public = SIGNING_KEY.as_pem(private=False)
    token = jwt.encode({"alg": "HS256"}, claims(clock), OctKey.import_key(urlsafe_b64encode(public)))
    with pytest.raises(TokenInvalid):
        verifier.verify(token)


def test_a_user_key_does_not_make_service_tokens(clock: ManualClock, verifier: TokenVerifier) -> None:
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(claims(clock, iss=SERVICE_ISSUER, sub="services/playback")))


def test_the_service_key_does_not_make_user_tokens(clock: ManualClock, verifier: TokenVerifier) -> None:
    key = OctKey.import_key(derive(INTERNAL, "service tokens"))
    for values in (claims(clock), claims(clock, iss=SERVICE_ISSUER)):
        with pytest.raises(TokenInvalid):
            verifier.verify(jwt.encode({"alg": "HS256"}, values, key))


def test_an_unsigned_token_is_refused(clock: ManualClock, verifier: TokenVerifier) -> None:
    def part(value: Any) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    with pytest.raises(TokenInvalid):
        verifier.verify(f"{part({'alg': 'none'})}.{part(claims(clock))}.")


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "....", "é.é.é", "a." + "e30" + ".c", "a.W10.c"])
def test_what_is_no_token_is_refused(token: str, verifier: TokenVerifier) -> None:
    with pytest.raises(TokenInvalid):
        verifier.verify(token)


def test_unknown_roles_are_dropped(clock: ManualClock, verifier: TokenVerifier) -> None:
    assert verifier.verify(signed(claims(clock, roles=["viewer", "root", 3, {}]))).roles == {"viewer"}


def test_roles_include_the_lower_ones() -> None:
    held = {
        role: [user("users/a", role).has_role(r) for r in ("viewer", "publisher", "operator")]
        for role in ("viewer", "publisher", "operator")
    }
    assert held == {
        "viewer": [True, False, False],
        "publisher": [True, True, False],
        "operator": [True, True, True],
    }


CALLERS = {
    "nobody": None,
    "new user": user(),
    "viewer": user("users/ann", "viewer"),
    "publisher": user("users/ann", "publisher"),
    "operator": user("users/ann", "operator"),
    "service": SERVICE,
}
PASSES = {
    Access.PUBLIC: set(CALLERS),
    Access.LEASE: set(CALLERS),
    Access.VIEWER: {"new user", "viewer", "publisher", "operator", "service"},
    Access.PUBLISHER: {"publisher", "operator", "service"},
    Access.OPERATOR: {"operator", "service"},
    Access.SERVICE: {"service"},
}


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("who", CALLERS)
def test_who_passes_which_rule(access: Access, who: str) -> None:
    refusal = None
    try:
        check_allowed(access, CALLERS[who])
    except (Unauthenticated, RoleMissing, ServiceOnly) as error:
        refusal = type(error)
    if who in PASSES[access]:
        assert refusal is None
    elif who == "nobody":
        assert refusal is Unauthenticated
    else:
        assert refusal is (ServiceOnly if access is Access.SERVICE else RoleMissing)


@pytest.mark.parametrize("name", ["users/ann", "users/ann/profiles/p", "users/ann/profiles/p/views/v"])
def test_a_user_may_touch_their_own(name: str) -> None:
    set_principal(user())
    assert require_user(name) == user()


@pytest.mark.parametrize(
    "name", ["users/bob", "users/annette", "users/ann2/profiles/p", "titles/x", "", "users"]
)
def test_a_user_may_not_touch_others(name: str) -> None:
    set_principal(user("users/ann", "publisher"))
    with pytest.raises(NotYours):
        require_user(name)


@pytest.mark.parametrize("caller", [user("users/root", "operator"), SERVICE])
def test_operators_and_services_may_touch_everybodys(caller: Principal) -> None:
    set_principal(caller)
    assert require_user("users/bob") == caller


def test_without_a_caller_everything_that_asks_for_one_fails() -> None:
    for ask in (principal, lambda: require_user("users/ann"), lambda: require_role("viewer")):
        with pytest.raises(Unauthenticated):
            ask()
    assert maybe_principal() is None


def test_a_missing_role_is_named() -> None:
    set_principal(user())
    with pytest.raises(RoleMissing, match="publisher"):
        require_role("publisher")
