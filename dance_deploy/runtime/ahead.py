"""A generator that works in a thread of its own, a bounded number of items ahead of its consumer."""
import queue
import threading

_POLL_S = 0.2   # how soon a full or empty queue notices that the other side is gone
_JOIN_S = 2.0   # a camera or network read may block; its thread is then left behind (it is a daemon)


class Ahead(object):
    """Iterate over what `iterable` yields, produced ahead by a thread.

    depth: items kept ready; drop_oldest: when the consumer is too slow, drop the oldest ready item instead of
    waiting (for live sources), and count it in `dropped`.
    What the producer raises is raised to the consumer after the items before it. Leaving the `with` block stops the
    thread and closes the generator in it.
    """

    def __init__(self, iterable, depth=2, drop_oldest=False):
        self.dropped = 0
        self._drop_oldest = drop_oldest
        self._ready = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, args=(iterable,), name="dance-decode")
        self._thread.daemon = True
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        while True:
            item, error, ended = self._take()
            if error is not None:
                raise error
            if ended:
                return
            yield item

    def close(self):
        """Stop the thread; what it had ready is dropped."""
        self._stop.set()
        self._thread.join(_JOIN_S)

    def _produce(self, iterable):
        try:
            for item in iterable:
                if not self._put((item, None, False)):
                    break
            self._put((None, None, True), may_drop=False)
        except BaseException as error:  # carried over to the consumer, whatever it is
            self._put((None, error, True), may_drop=False)
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    def _put(self, entry, may_drop=True):
        """False where the consumer has gone."""
        while not self._stop.is_set():
            try:
                self._ready.put(entry, timeout=0 if self._drop_oldest and may_drop else _POLL_S)
                return True
            except queue.Full:
                if self._drop_oldest and may_drop:
                    self._drop_one()
        return False

    def _drop_one(self):
        try:
            self._ready.get_nowait()
            self.dropped += 1
        except queue.Empty:
            pass

    def _take(self):
        while True:
            try:
                return self._ready.get(timeout=_POLL_S)
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    return None, None, True
