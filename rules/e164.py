"""Telephone numbers in E.164 form, the only form in which the guard reads and writes a number."""

import re

PATTERN = r"\+[1-9][0-9]{6,14}"
_E164 = re.compile(PATTERN)
_DUTCH = "+31"

# What may be a number in a text that nobody has parsed: seven digits or more, also in groups, also with an escaped plus sign. An
# instant or a date is none.
_DIGIT_ESCAPE = re.compile(r"\\u00(2[bB]|3[0-9])")
_DATE_OR_NUMBER = re.compile(
    r"(?P<date>(?<!\d)[0-9]{4}-[0-9]{2}-[0-9]{2}(?!\d)(?:[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|z|[+-][0-9]{2}:[0-9]{2})?)?)"
    r"|\+?\d(?:[ ./()-]{0,2}\d){6,}"
)


def is_e164(text: str) -> bool:
    r"""Whether ``text`` is a number like ``+31612345678`` (wire contract: ``\+[1-9][0-9]{6,14}`` and nothing else)."""
    return _E164.fullmatch(text) is not None


def is_dutch(number: str) -> bool:
    """Whether an E.164 number lies in the Dutch numbering plan (rule S-05)."""
    return number.startswith(_DUTCH)


def masked(number: str) -> str:
    """The number as logs, errors and metrics may show it: country code and the last two digits (``+31*******78``).

    A text that is no number is masked whole, because what stands in a broken number field may still be one.
    """
    if not is_e164(number):
        return "*" * min(len(number), 8)
    return _ends_of(number)


def without(number: str, text: str) -> str:
    """A text with a number masked in it, also where its plus sign lacks: some make an id of the number that they call."""
    return text.replace(number[1:], masked(number)[1:])


def masked_in(text: str) -> str:
    """A text with everything masked in it that may be a number, in E.164 form or not; dates and instants stay.

    It masks too much rather than too little: a long id made of digits goes too.
    """
    plain = _DIGIT_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    return _DATE_OR_NUMBER.sub(lambda found: found[0] if found["date"] else _ends_of(found[0]), plain)


def masked_e164_in(text: str) -> str:
    """A text with every number in E.164 form masked in it, and nothing else: addresses, offsets and ids stay readable."""
    return _E164.sub(lambda found: _ends_of(found[0]), text)


def _ends_of(digits: str) -> str:
    return digits[:3] + "*" * (len(digits) - 5) + digits[-2:]
