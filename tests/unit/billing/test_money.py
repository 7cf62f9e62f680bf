from __future__ import annotations

import pytest

from services.billing.money import CURRENCIES, MAX_AMOUNT_MINOR, Money, checked_price, holds_card_number
from services.runtime.errors import InvalidArgument


@pytest.mark.parametrize("code", ["EUR", "USD", "JPY", "KWD", "XOF", "ZWG"])
@pytest.mark.parametrize("amount", [0, 1, MAX_AMOUNT_MINOR])
def test_a_price_in_a_currency_in_use_passes(code: str, amount: int) -> None:
    price = Money(currency_code=code, amount_minor=amount)
    assert checked_price(price, "price") == price


@pytest.mark.parametrize("code", ["XXX", "XTS", "XAU", "DEM", "HRK", "ZZZ", "eur", ""])
def test_a_currency_nobody_pays_in_is_refused(code: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_price(Money(currency_code=code, amount_minor=1), "plan.price")
    assert caught.value.violations[0].field == "plan.price.currency_code"


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT_MINOR + 1, 2**63 - 1, -(2**63)])
def test_an_amount_no_plan_costs_is_refused(amount: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_price(Money(currency_code="EUR", amount_minor=amount), "plan.price")
    assert caught.value.violations[0].field == "plan.price.amount_minor"


def test_the_table_holds_well_formed_codes_once() -> None:
    assert len(CURRENCIES) == 155
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCIES)


@pytest.mark.parametrize(
    "text", ["4111111111111111", "paid with 5500 0000 0000 0004.", "3400-000000-00009", "x:4222222222222"]
)
def test_the_test_numbers_of_card_schemes_are_found(text: str) -> None:
    assert holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RF18 5390 0754 7034",
        "4111111111111112",
        "KINO-000042",
        "DE89370400440532013000",
        "2025-01-31 12:00",
    ],
)
def test_references_of_banks_pass(text: str) -> None:
    assert not holds_card_number(text)
