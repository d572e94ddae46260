# ruff: noqa: INP001, T201  # a script that stands alone and prints
"""May this number be called now? Asks the gateway over HTTP, with nothing but the standard library of Python 3.9 or later.

    python3 ask_http.py call.json +31612345678

prints ``dial`` and ends with exit code 0, or prints ``do not dial: WHY`` and ends with 1. Whatever goes wrong is a no.

``call.json`` holds what does not change from call to call:

    {"gateway": "http://127.0.0.1:8080", "key_file": "dial.key", "timeout_s": 6, "request": {"advertiser_id": "adv-1", ...}}
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

#: The same request goes out once more after a time-out: a request_id is decided once, and its answer repeated.
ATTEMPTS = 2
#: What is left of an approval at least: ringing up takes a moment, and the clocks of guard and dialler may differ.
MARGIN = timedelta(seconds=2)
_TOO_FAST, _NOT_DECIDED = 429, 503
_MOST_BYTES = 1 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nobody: the key is for the gateway alone."""


_open = urllib.request.build_opener(_NoRedirect).open


def may_dial(call: dict[str, Any], number: str) -> tuple[bool, str]:
    """Ask for one call.

    Args:
        call: what ``call.json`` holds.
        number: whom to call, ``+31612345678``.

    Returns: whether to dial now, and why or why not. It raises nothing on account of the gateway.
    """
    dial_at = datetime.now(timezone.utc).isoformat()  # noqa: UP017  # datetime.UTC came with Python 3.11
    request = {**call["request"], "request_id": str(uuid.uuid4()), "number": number, "dial_at": dial_at}
    why = ""
    for _ in range(ATTEMPTS):
        try:
            return _judged(request, _post(call, request))
        except urllib.error.HTTPError as error:
            why = f"the gateway answers {error.code}"
            error.close()
            if error.code not in (_TOO_FAST, _NOT_DECIDED):
                break
        except Exception as error:  # noqa: BLE001  # a dialler must not dial because of a fault that nobody thought of
            why = f"no answer: {type(error).__name__}"
    return False, why


def _post(call: dict[str, Any], request: dict[str, Any]) -> Any:
    key = Path(call["key_file"]).read_text(encoding="utf-8").strip()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    url = f"{call['gateway']}/v1/call-requests"
    posted = urllib.request.Request(url, json.dumps(request).encode(), headers, method="POST")  # noqa: S310
    with _open(posted, timeout=call.get("timeout_s", 6)) as response:
        if response.status != 200:  # noqa: PLR2004
            raise ValueError(response.status)
        return json.loads(response.read(_MOST_BYTES))


def _judged(request: dict[str, Any], decision: dict[str, Any]) -> tuple[bool, str]:
    if any(decision[field] != request[field] for field in ("request_id", "number")):
        return False, "the answer is to another request"
    if decision["decision"] != "approved":
        return False, ", ".join(decision["reasons"])
    valid_until = datetime.fromisoformat(decision["valid_until"].replace("Z", "+00:00"))  # noqa: FURB162  # Python 3.9 reads no Z
    if datetime.now(timezone.utc) + MARGIN >= valid_until:  # noqa: UP017  # datetime.UTC came with Python 3.11
        return False, "the approval is over"
    return True, decision["basis"]


def main() -> int:
    """The command line; returns the exit code."""
    call_file, number = sys.argv[1:]
    dials, why = may_dial(json.loads(Path(call_file).read_text(encoding="utf-8")), number)
    print("dial" if dials else f"do not dial: {why}")
    return 0 if dials else 1


if __name__ == "__main__":
    sys.exit(main())
