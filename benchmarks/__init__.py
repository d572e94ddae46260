"""How fast the guard decides, what it costs, and whether that is what was wanted.

```
__main__.py   the command line: which parts, of which sizes
  parts.py      the parts in their order; each has a module with measure(place, sizes)
    side_by_side.py   contenders: beside a text-book Faust agent, an echo and Kafka Streams
    two_workers.py, memory.py, imports.py, growth.py
  stage.py      a guard with many numbers in its state, which most parts begin with
  measure.py    a backlog, an open loop
  client.py     writes requests, reads answers
  contenders.py processes that are measured
  workload.py, town.py, sizes.py   what they are given, and how much of it
  tables.py     results as the tables of docs/performance.md; targets.py, figures.py and pictures.py beside it
rebuild.py    a command of its own: how long a guard takes after its Redis was emptied
```
"""
