"""Telephone numbers in E.164 form, the only form in which the guard reads and writes a number."""

import re

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_DUTCH = "+31"


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
    return number[:3] + "*" * (len(number) - 5) + number[-2:]
