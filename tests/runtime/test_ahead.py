"""The decode thread: ahead by a bounded number of items, and never left behind."""
import threading
import time

import pytest

from dance_deploy.errors import InputError
from dance_deploy.runtime.ahead import Ahead


def wait_for(condition, limit_s=5.0):
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def decoders():
    return [thread for thread in threading.enumerate() if thread.name == "dance-decode"]


class Counting:
    """A generator of numbers that tells what happened to it."""

    def __init__(self, count, fail_at=None):
        self.made = 0
        self.closed_in = None
        self._numbers = self._make(count, fail_at)

    def __iter__(self):
        return self._numbers

    def close(self):
        self._numbers.close()
        self.closed_in = threading.current_thread().name

    def _make(self, count, fail_at):
        for number in range(count):
            if number == fail_at:
                raise InputError("damaged at {}".format(number))
            self.made += 1
            yield number


def test_gives_every_item_in_order():
    with Ahead(Counting(500), depth=3) as ahead:
        assert list(ahead) == list(range(500))
    assert decoders() == []


def test_works_ahead_but_not_further_than_its_depth():
    source = Counting(1000)
    with Ahead(source, depth=4) as ahead:
        numbers = iter(ahead)
        assert next(numbers) == 0
        assert wait_for(lambda: source.made == 6)  # one taken, four ready, one waiting to be put
        time.sleep(0.1)
        assert source.made == 6


def test_errors_come_after_the_items_before_them():
    seen = []
    with pytest.raises(InputError, match="damaged at 3"), Ahead(Counting(9, fail_at=3)) as ahead:
        for number in ahead:
            seen.append(number)
    assert seen == [0, 1, 2]
    assert decoders() == []


def test_leaving_early_stops_the_thread_and_closes_the_generator_in_it():
    source = Counting(1000)
    with Ahead(source) as ahead:
        assert next(iter(ahead)) == 0
    assert decoders() == []
    assert source.closed_in == "dance-decode"


def test_an_error_of_the_consumer_stops_the_thread():
    source = Counting(1000)
    with pytest.raises(KeyboardInterrupt), Ahead(source):
        raise KeyboardInterrupt
    assert decoders() == []
    assert source.closed_in == "dance-decode"


def test_live_sources_drop_the_oldest():
    source = Counting(100)
    with Ahead(source, depth=2, drop_oldest=True) as ahead:
        assert wait_for(lambda: source.made == 100)
        assert wait_for(lambda: ahead.dropped == 98)
        assert list(ahead) == [98, 99]


def test_files_drop_nothing_however_slow_the_consumer():
    with Ahead(Counting(20), depth=1) as ahead:
        seen = []
        for number in ahead:
            time.sleep(0.002)
            seen.append(number)
        assert seen == list(range(20))
        assert ahead.dropped == 0
