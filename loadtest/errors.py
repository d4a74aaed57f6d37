"""What can stop a load test."""


class LoadtestError(Exception):
    """The load test can't go on; the message is meant for the person who started it."""


class PgbenchError(LoadtestError):
    """One pgbench run failed: an error, failed transactions, no end in sight. In pgbench's own words."""
