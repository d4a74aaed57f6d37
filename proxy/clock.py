"""Time as a value passed in: what measures durations takes a Clock, so that tests decide what time it is."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds from an arbitrary start; never goes back."""

monotonic: Clock = time.monotonic
