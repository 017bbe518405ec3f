"""What a run of dance-run was, kept for its page: a bounded number of columns a video, however long the video is."""
from typing import Any, Dict, List, NamedTuple, Optional

# of a video: windows stand alone up to that many; then neighbours are merged two by two
MOST_COLUMNS = 120


class Column(NamedTuple):
    """One window, or some that follow each other. Sums over `windows`: score (of each one's best label), macs, bytes,
    controller_ms, body_ms, kept ([(frames, channels, features)] a gate); labels: how often each was the best; energy_j:
    None unless all of them are known."""

    windows: int
    start_s: float
    end_s: float
    labels: Dict[str, int]
    score: float
    macs: int
    bytes: int
    controller_ms: float
    body_ms: float
    kept: List[Any]
    energy_j: Optional[float]

    @property
    def label(self):
        """The label that was the best most often."""
        return max(self.labels, key=self.labels.get)


class VideoLog(NamedTuple):
    """columns: in order; totals: [(frames, channels, features)] a gate, of which `kept` is a part; best: [{"label",
    "score"}] averaged over the video; energy: a VideoEnergy, None without --power; note: why energy is unknown."""

    name: str
    columns: List[Column]
    macs_dense: int
    bytes_dense: int
    layers: List[str]
    totals: List[Any]
    best: List[Dict[str, Any]]
    energy: Any
    note: Optional[str]


class RunLog(object):
    """Takes dance-run's records (the JSON objects, docs/dance-run.md) as they come. videos: [VideoLog]; failed: [(name,
    line)] of the inputs that broke off."""

    def __init__(self):
        self.videos, self.failed = [], []
        self._name, self._columns, self._size, self._last = "", [], 1, None

    def begin_video(self, name):
        self._name, self._columns, self._size, self._last = name, [], 1, None

    def write(self, record):
        """One window's record."""
        new, self._last = _column(record), record
        if self._columns and self._columns[-1].windows < self._size:
            self._columns[-1] = _merged(self._columns[-1:] + [new])
        else:
            self._columns.append(new)
        if len(self._columns) > MOST_COLUMNS:
            self._size *= 2
            self._columns = [_merged(self._columns[i:i + 2]) for i in range(0, len(self._columns), 2)]

    def end_video(self, best, energy=None, note=None):
        """The video is whole. best: [{"label", "score"}]; energy, note: as in VideoLog."""
        if self._last is None:
            return
        kept = self._last["kept"]
        totals = [tuple(entry[kind][1] for kind in ("frames", "channels", "features")) for entry in kept]
        self.videos.append(VideoLog(
            self._name, self._columns, self._last["macs_dense"], self._last["bytes_dense"],
            [entry["layer"] for entry in kept], totals, best, energy, note))

    def drop_video(self, line):
        """The input broke off: its windows are no result. line: why."""
        self.failed.append((self._name, line))
        self._columns, self._last = [], None


def _column(record):
    best, latency = record["top"][0], record["latency_ms"]
    return Column(1, record["start_s"], record["end_s"], {best["label"]: 1}, best["score"], record["macs"],
                  record["bytes"], latency["controller"], latency["body"],
                  [tuple(entry[kind][0] for kind in ("frames", "channels", "features")) for entry in record["kept"]],
                  record["energy_j"])


def _merged(columns):
    if len(columns) == 1:
        return columns[0]
    labels = {}
    for column in columns:
        for label, count in column.labels.items():
            labels[label] = labels.get(label, 0) + count
    energies_j = [column.energy_j for column in columns]
    return Column(
        sum(c.windows for c in columns), columns[0].start_s, columns[-1].end_s, labels, sum(c.score for c in columns),
        sum(c.macs for c in columns), sum(c.bytes for c in columns), sum(c.controller_ms for c in columns),
        sum(c.body_ms for c in columns),
        [tuple(map(sum, zip(*gates))) for gates in zip(*[c.kept for c in columns])],
        None if None in energies_j else sum(energies_j))
