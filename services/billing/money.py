"""Money: whole minor units of a currency that exists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.runtime.errors import InvalidArgument

#: Greatest price; sums of very many stay far below 2^63.
MAX_AMOUNT_MINOR = 10**12

_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ
GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP
LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR
PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC
SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF
XPF YER ZAR ZMW ZWG
"""
#: Currencies of states and monetary unions: ISO 4217, list one, as of 2026 (after Curaçao's XCG, Zimbabwe's
#: ZWG and Bulgaria's euro). Left out: funds codes, precious metals, `XTS` and `XXX`, in which nobody pays.
CURRENCIES = frozenset(_CODES.split())

_CARD_NUMBER = re.compile(r"(?<!\d)[3-6](?:[ -]?\d){12,18}(?!\d)")


@dataclass(frozen=True, kw_only=True)
class Money:
    """An amount; no floating point number ever holds money."""

    #: ISO 4217.
    currency_code: str
    #: Cents for EUR, whole yen for JPY.
    amount_minor: int


def checked_price(price: Money, field: str) -> Money:
    """`price`, if something can cost that. Raises `InvalidArgument` below `field`."""
    if price.currency_code not in CURRENCIES:
        raise InvalidArgument(f"{field}.currency_code", "must be a currency of ISO 4217 that is in use")
    if not 0 <= price.amount_minor <= MAX_AMOUNT_MINOR:
        raise InvalidArgument(f"{field}.amount_minor", f"must be from 0 to {MAX_AMOUNT_MINOR}")
    return price


def holds_card_number(text: str) -> bool:
    """Whether `text` seems to hold a payment card's number: 13 to 19 digits, the right first and check digit.

    A false alarm costs the operator another spelling; a card number in the books far more (PCI DSS, 3).
    """
    return any(_luhn([int(char) for char in found if char.isdigit()]) for found in _CARD_NUMBER.findall(text))


def _luhn(digits: list[int]) -> bool:
    """The check of ISO/IEC 7812-1, annex B."""
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
