"""Side-by-side load tests: pgbench against PostgreSQL itself, PgBouncer and pgsluice, interleaved in one run.

`python -m loadtest` runs the whole grid and writes a report; `python -m loadtest.quick` answers one question
while developing: what does a transaction cost the proxy, compared with PgBouncer. Linux only: it reads /proc.
"""
