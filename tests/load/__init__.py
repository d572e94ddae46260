"""How long decisions take under a steady load: ``python -m tests.load --help``. For teams that load-test a set-up of their own.

```
__main__.py   the command line, the table, exit codes
targets.py    what is loaded: workers of our own, a guard that runs, a gateway
loop.py       the open loop, over Kafka and over HTTP
```

It builds on the benchmarks, which compare and keep figures; this tells about the servers that it is pointed at, and keeps nothing.
"""
