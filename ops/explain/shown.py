"""Personal data as an explanation may show it: numbers masked, persons by letters, unless somebody asks for them in full."""

from __future__ import annotations

import string

from rules.e164 import is_dutch, is_e164, masked, masked_in


class Shown:
    """How one explanation shows what concerns a person. Persons keep their letter, so that one can see whether two are the same."""

    def __init__(self, number: str, person: str, *, unmasked: bool) -> None:
        """Args: the number that it is about; the word for a person; whether everything is shown as it is."""
        self._number = number
        # However it is written, in ids too: +31612345678, 0031612345678, 0612345678.
        self._subscriber = number[3:] if is_dutch(number) else number[1:]
        self._person = person
        self._persons: list[str] = []
        self._unmasked = unmasked

    def number(self, number: str) -> str:
        """A telephone number."""
        return number if self._unmasked else masked(number)

    def person(self, ref: str) -> str:
        """A person_ref: a letter for each."""
        if self._unmasked:
            return ref
        if ref not in self._persons:
            self._persons.append(ref)
        position = self._persons.index(ref)
        return f"{self._person} {string.ascii_uppercase[position] if position < len(string.ascii_uppercase) else position + 1}"

    def identifier(self, text: str) -> str:
        """An id, in which only the number itself is masked, because whoever looks a fact up needs the rest."""
        if self._unmasked:
            return text
        if is_e164(text):
            return masked(text)
        return text.replace(self._subscriber, "*" * len(self._subscriber))

    def free(self, text: str) -> str:
        """Any other text, in which everything is masked that may be a number."""
        return text if self._unmasked else masked_in(text)
