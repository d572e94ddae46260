"""The dial gate: for diallers that read Kafka, from a request to the moment at which its call may be dialled.

```
gate.py         DialGate, what a dialler uses: ask(), may_dial(), confirm()
  asking.py       publishes a request and finds its answer
  reader.py       reads the output topics, and asks the broker where they end
    keeper.py       the judgement as a whole, without I/O
      joined.py       approvals, refusals and recalls by request_id
      guard_time.py   what the guard's clock may show
      currency.py     as of when everything is known
  permission.py   the answer
```
"""

from ops.client.gate import Answer, DialGate
from ops.client.permission import Permission, Reason

__all__ = ["Answer", "DialGate", "Permission", "Reason"]
