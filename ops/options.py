"""What the subcommands share: exit codes, common options, and settings from the environment."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from config.settings import Settings
from rules.errors import CannotStart

EXIT_FINDINGS, EXIT_USAGE, EXIT_CANNOT_START, EXIT_INTERRUPTED = 1, 2, 3, 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Unmasked = Annotated[bool, typer.Option("--unmasked", help="Show numbers in full. They are personal data.")]


def settings_from_environment() -> Settings:
    """Settings from the variables that begin with ``RINGFENCE_``.

    Raises:
        CannotStart: names every variable that cannot be read.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"RINGFENCE_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors(include_input=False)
        )
        raise CannotStart(f"settings: {faults}") from None
