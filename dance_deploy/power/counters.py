"""Energy counters that wrap: from what the hardware shows to joules since the start."""

# no device that this package is for draws more; a counter that implies more was reset, not wrapped
MOST_POWER_W = 10e3
# what a counter's device may draw for long: unseen for as long as this takes to go round, wraps cannot be counted
FULL_LOAD_W = 1e3


class WrappingCounter(object):
    """One counter. range_j: where it wraps to 0, None: it never does."""

    def __init__(self, range_j=None):
        self._range_j = range_j
        self._last_j = None
        self._last_s = None
        self._total_j = 0.0

    def add(self, time_s, value_j):
        """Joules since the first call, or None where the step cannot be right (a reset, more than one wrap): the energy
        of that step is unknown, and counting goes on from here."""
        step_j = self._step(time_s, value_j)
        self._last_j, self._last_s = value_j, time_s
        if step_j is None:
            return None
        self._total_j += step_j
        return self._total_j

    def _step(self, time_s, value_j):
        if self._last_j is None:
            return 0.0
        elapsed_s, step_j = max(time_s - self._last_s, 1e-3), value_j - self._last_j
        if self._range_j is not None:
            if FULL_LOAD_W * elapsed_s >= self._range_j:
                return None
            if step_j < 0.0:
                step_j += self._range_j
        return step_j if 0.0 <= step_j <= MOST_POWER_W * elapsed_s else None
