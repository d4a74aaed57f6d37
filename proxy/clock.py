"""Time as a value passed in: what measures durations takes a Clock, so that tests decide what time it is."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds from an arbitrary start; never goes back."""

monotonic: Clock = time.monotonic


def now() -> float:
    """Seconds on the clock that statements are measured by. Compiled modules use the function of this name in
    ``clock.pxd``, which reads the same clock.
    """
    return time.clock_gettime(time.CLOCK_MONOTONIC)
