"""What dance-run shows to a person: plain text, a line a window, a summary a video, a table of what was kept."""
import time

import numpy as np

from dance_deploy.quantities import count_text

_TOP_IN_SUMMARY = 3
_BAR_CELLS = 8
_KEPT = "kept on average"
_KINDS = ("frames", "channels", "features")


class Style(object):
    """Bars and marks that the output's encoding can carry."""

    def __init__(self, encoding):
        try:
            "\u2588\u2591\u2013\u00b7".encode(encoding or "ascii")
            self.full, self.empty, self.dash, self.dot = "\u2588", "\u2591", "\u2013", "\u00b7"
        except (UnicodeEncodeError, LookupError):
            self.full, self.empty, self.dash, self.dot = "#", ".", "-", "|"
        self._encoding = encoding or "ascii"

    def bar(self, share, cells=_BAR_CELLS):
        """A bar of `cells` characters; share in [0, 1]."""
        filled = int(round(min(max(share, 0.0), 1.0) * cells))
        return self.full * filled + self.empty * (cells - filled)

    def fit(self, text, width):
        """`text` in exactly `width` characters that the output can show."""
        text = text.encode(self._encoding, "replace").decode(self._encoding)
        return text.ljust(width) if len(text) <= width else text[:width - 2] + ".."


class VideoTally(object):
    """Sums over one video's windows; its size does not depend on their number."""

    def __init__(self):
        self.windows = self.dropped = 0
        self.scores = self.kept = None
        self.macs = self.bytes = 0
        self.macs_dense = self.bytes_dense = 0
        self.controller_ms = self.body_ms = 0.0

    def add(self, item):
        """item: a WindowResult."""
        result = item.result
        self.dropped = item.dropped
        scores, kept = result.scores.astype(np.float64), result.kept.astype(np.float64)
        self.scores = scores if self.scores is None else self.scores + scores
        self.kept = kept if self.kept is None else self.kept + kept
        self.windows += 1
        self.macs += result.macs
        self.bytes += result.bytes
        self.macs_dense += result.macs_dense
        self.bytes_dense += result.bytes_dense
        self.controller_ms += result.latency_ms.controller
        self.body_ms += result.latency_ms.body

    def merge(self, other):
        """Add another tally."""
        if not other.windows:
            return
        self.scores = other.scores if self.scores is None else self.scores + other.scores
        self.kept = other.kept if self.kept is None else self.kept + other.kept
        for name in ("windows", "dropped", "macs", "bytes", "macs_dense", "bytes_dense", "controller_ms", "body_ms"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Report(object):
    """Prints as results come. out: a text stream, None: silent; dense: no table of what was kept."""

    def __init__(self, out, manifest, dense):
        self._out = out
        self._style = Style(out.encoding if out else None)
        self._manifest = manifest
        self._dense = dense
        self._label_width = min(24, max(len(label) for label in manifest.model.labels))
        self._all = VideoTally()

    def head(self, backend, budget):
        """The line above everything. backend: a loaded backend; budget: the share asked for."""
        model = self._manifest.model
        parts = [model.name, "{} classes".format(len(model.labels)), "{}: {}".format(backend.name, backend.description)]
        parts.append("dense" if self._dense else "budget {:.2f}".format(budget))
        self._write(self._clean((" %s " % self._style.dot).join(parts)))
        if not model.trained:
            self._write("untrained: the labels below mean nothing")

    def video(self, name):
        self._write("")
        self._write(self._clean(name))

    def window(self, window, result):
        best = int(np.argmax(result.scores))
        share = result.macs / float(result.macs_dense)
        self._write("{:>9} {} {:<9} {} {:>4}  MACs {} {:>4}  {:>8}".format(
            _seconds(window.start_s), self._style.dash, _seconds(window.end_s) + " s",
            self._style.fit(self._manifest.model.labels[best], self._label_width), _percent(result.scores[best]),
            self._style.bar(share), _percent(share), _milliseconds(result.latency_ms.total)))

    def summary(self, tally, top_k):
        """The lines below a video's windows; tally: its VideoTally."""
        self._all.merge(tally)
        if not tally.windows:
            self._write("  (stopped before the first window)")
            return
        scores = tally.scores / tally.windows
        order = np.argsort(-scores, kind="mergesort")[:min(top_k, _TOP_IN_SUMMARY)]
        labels = self._manifest.model.labels
        named = ", ".join("{} {}".format(labels[i], _percent(scores[i])) for i in order)
        count = "{} window{}".format(tally.windows, "" if tally.windows == 1 else "s")
        self._write(self._clean("  = {}  ({})".format(named, count)))
        for line in self._costs(tally):
            self._write(line)
        if tally.dropped:
            self._write("    {} windows passed unseen: the source is faster than the model".format(tally.dropped))

    def lines(self, lines):
        """More lines below a video's summary."""
        for line in lines:
            self._write(line)

    def foot(self):
        """The table of what each gate kept, over all videos."""
        if self._dense or not self._all.windows:
            return
        width = min(32, max([len(_KEPT)] + [len(gate.name) for gate in self._manifest.gates]))
        self._write("")
        titles = "".join(kind.ljust(_BAR_CELLS + 8) for kind in _KINDS)
        self._write(_KEPT.ljust(width + 2) + titles.rstrip())
        for gate, counts in zip(self._manifest.gates, self._all.kept / self._all.windows):
            channels, frames, height, features_w = gate.input_size
            totals = (frames, channels, height * features_w)
            cells = ["{} {:>4}".format(self._style.bar(kept / total), _percent(kept / total)).ljust(_BAR_CELLS + 8)
                     for kept, total in zip(counts, totals)]
            self._write(self._style.fit(gate.name, width + 2) + "".join(cells).rstrip())

    def _costs(self, tally):
        n = float(tally.windows)
        if self._dense:
            yield "    {} MACs, {} moved, {} a window".format(
                count_text(tally.macs / n), count_text(tally.bytes / n) + "B", _milliseconds(tally.body_ms / n))
            return
        macs, dense = count_text(tally.macs / n).strip(), count_text(tally.macs_dense / n).strip()
        yield "    MACs {} of dense ({} of {}), memory accesses {} (counted)".format(
            _percent(tally.macs / float(tally.macs_dense)), macs, dense,
            _percent(tally.bytes / float(tally.bytes_dense)))
        yield "    {} a window (controller {}, body {})".format(
            _milliseconds((tally.controller_ms + tally.body_ms) / n), _milliseconds(tally.controller_ms / n),
            _milliseconds(tally.body_ms / n))

    def _write(self, line):
        if self._out:
            self._out.write(line + "\n")
            self._out.flush()  # so that a pipe shows each window when it is done

    def _clean(self, text):
        return self._style.fit(text, len(text)) if text else text


class Progress(object):
    """One line that is overwritten, for long videos; shows nothing unless `active`."""

    def __init__(self, out, active):
        self._out = out
        self._active = active
        self._width = 0
        self._next_s = 0.0

    def show(self, text):
        """Replace the line, at most five times a second."""
        now = time.monotonic()
        if not self._active or now < self._next_s:
            return
        self._next_s = now + 0.2
        text = text.encode(self._out.encoding or "ascii", "replace").decode(self._out.encoding or "ascii")
        self._out.write("\r" + text.ljust(self._width))
        self._out.flush()
        self._width = len(text)

    def clear(self):
        """Remove the line."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0


def _percent(share):
    return "{:.0f}%".format(100.0 * share)


def _seconds(seconds):
    if seconds < 60:
        return "{:.2f}".format(seconds)
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return "{}:{:02d}:{:04.1f}".format(hours, minutes, rest) if hours else "{}:{:04.1f}".format(minutes, rest)


def _milliseconds(ms):
    return "{:.1f} ms".format(ms) if ms < 100 else "{:.0f} ms".format(ms)
