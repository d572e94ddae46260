#!/usr/bin/env python3
# ruff: noqa: T201  # a script that Asterisk starts; its output is the protocol
"""May this call be dialled? An AGI script: it sets the channel variable MAY_DIAL to ``yes`` or ``no``. ask_http.py lies beside it.

    same => n,Set(MAY_DIAL=no)
    same => n,AGI(agi_may_dial.py,/etc/ringfence/call.json,+${EXTEN})

A script that fails, hangs up or is not found leaves the ``no`` that the dialplan has set.
"""

import json
import sys
from pathlib import Path

from ask_http import may_dial


def say(command: str) -> None:
    """Give Asterisk a command and wait until it has answered."""
    print(command, flush=True)
    sys.stdin.readline()


def main() -> None:
    """Read what Asterisk tells of the channel up to the empty line, ask, and set the variable."""
    while sys.stdin.readline().strip():
        pass
    call_file, number = sys.argv[1:]
    dials, why = may_dial(json.loads(Path(call_file).read_text(encoding="utf-8")), number)
    say(f'VERBOSE "ringfence: {"dial" if dials else "do not dial"}, {why}" 3')
    say(f"SET VARIABLE MAY_DIAL {'yes' if dials else 'no'}")


if __name__ == "__main__":
    main()
