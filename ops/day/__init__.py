"""A made-up day of Dutch outbound calling, the same for the same seed: who calls, who is called, and what happens from 14:00.

```
stream.py     Day: the day in order, without I/O: reference(), facts(), then live() for ever
  requests.py   what a call centre asks, slips included
  history.py    one person's past
  consents.py   a consent given or withdrawn, before the day or on it
  people.py     a person of the row, and the number that belongs to it
  cast.py       the parties, their campaigns and caller numbers
  event.py      what all of them give: a record before it is encoded
```

Companies, people and numbers are invented: no Dutch subscriber number begins with 0, and mobile numbers are taken from 06-9,
which no operator uses as far as we know.
"""

from ops.day.event import Event
from ops.day.stream import DAY_START, Day

__all__ = ["DAY_START", "Day", "Event"]
