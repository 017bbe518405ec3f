"""tegrastats logs as JSON: one object a sample."""
import functools
import io
import json
import sys

from dance_deploy.errors import InputError
from dance_deploy.files import same_file, whole_file
from dance_deploy.power.boards import Boards, total_mw
from dance_deploy.power.tegrastats import LONGEST_LINE, sample_from_line


class ParsedLog(object):
    """What parse_log found: samples, lines without a sample, notices (lines of text for people)."""

    def __init__(self):
        self.samples = 0
        self.skipped = 0
        self.first_skipped = None
        self.notices = []

    def skip(self, number):
        self.skipped += 1
        self.first_skipped = self.first_skipped or number

    def notice(self, text, number):
        if len(self.notices) < 10:  # a damaged log has one a line
            self.notices.append("line {}: {}".format(number, text))


def json_from_line(line, boards=None):
    """`line` as a dict of plain values with always the same keys; a column that is not there is null or empty.

    boards: Boards to find the total with; None: those of the shipped profiles.
    """
    return json_from_sample(sample_from_line(line), boards or _shipped_boards())


@functools.lru_cache(1)
def _shipped_boards():
    return Boards()


def json_from_sample(sample, boards):
    """As json_from_line; sample: a Sample, or None for a line that holds none."""
    if sample is None:
        return {"timestamp": None, "ram_mb": None, "swap_mb": None, "cpu_load_pct": [], "gpu_load_pct": None,
                "emc_load_pct": None, "temps_c": [], "rails_mw": [], "total": None}
    return {
        "timestamp": sample.timestamp,
        "ram_mb": _listed(sample.ram_mb),
        "swap_mb": _listed(sample.swap_mb),
        "cpu_load_pct": list(sample.cpu_load_pct),
        "gpu_load_pct": sample.gpu_load_pct,
        "emc_load_pct": sample.emc_load_pct,
        "temps_c": [list(temp) for temp in sample.temps_c],
        "rails_mw": [[value for value in rail if value is not None] for rail in sample.rails],
        "total": _total(sample.rails, boards)[0],
    }


def parse_log(path, json_path="-", boards=None, stdin=None, stdout=None, stderr=None):
    """Write one JSON object a line for each sample in the log at `path` ("-": stdin) to `json_path` ("-": stdout).

    Lines without a sample are left out; how many, and what is odd about the rails, goes to stderr. A file appears whole
    or not at all. Returns a ParsedLog. Raises InputError where the log cannot be read or holds no sample at all.
    """
    found = ParsedLog()
    stderr = stderr or sys.stderr
    if same_file(path, json_path):
        raise InputError("log '{}' would be replaced by its JSON; give the JSON a name of its own".format(path))
    with _opened(path, stdin) as stream:
        objects = _objects(stream, boards or _shipped_boards(), found)
        first = next(objects, None)
        if first is None:
            raise InputError("log '{}': {}; expected the output of tegrastats".format(
                path, "is empty" if not found.skipped else "none of its {} lines is a sample of tegrastats".format(
                    found.skipped)))
        if json_path == "-":
            _write(stdout or sys.stdout, first, objects)
        else:
            _write_file(json_path, first, objects)
    for line in _summary(path, found):
        stderr.write(line + "\n")
    return found


def lines_of(stream):
    """Decoded lines of a binary stream. Of a line longer than a sample can be only so much comes that it is none."""
    while True:
        line = rest = stream.readline(LONGEST_LINE + 1)
        if not line:
            return
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE + 1)
        yield line.decode("utf-8", "replace")


def _objects(stream, boards, found):
    said = set()
    for number, line in enumerate(lines_of(stream), 1):
        sample = sample_from_line(line)
        if sample is None:
            if line.strip():
                found.skip(number)
            continue
        found.samples += 1
        why = _total(sample.rails, boards)[1]
        kind = why and (tuple(rail.label for rail in sample.rails), "permuted" in why)
        if why and kind not in said:
            if len(said) < 1000:
                said.add(kind)
            found.notice(why, number)
        yield json_from_sample(sample, boards)


def _total(rails, boards):
    """(JSON of the total or None, why there is none or None)."""
    if not rails:
        return None, None
    board = boards.board(tuple(rail.label for rail in rails))
    milliwatts, why = total_mw(rails, board)
    if milliwatts is None:
        return None, why
    return {"scope": board.total.scope, "rails": list(board.total.rails), "mw": milliwatts}, None


def _listed(pair):
    return None if pair is None else list(pair)


def _opened(path, stdin):
    if path == "-":
        # not closed by us; a text stream's bytes are below it
        return io.BufferedReader(_Borrowed(getattr(stdin or sys.stdin, "buffer", stdin)))
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError("log '{}' cannot be read: {}".format(path, error.strerror)) from error


class _Borrowed(io.RawIOBase):
    """A binary stream that stays open when the wrapper is closed."""

    def __init__(self, stream):
        super(_Borrowed, self).__init__()
        self._stream = stream

    def readable(self):
        return True

    def readinto(self, buffer):
        data = getattr(self._stream, "read1", self._stream.read)(len(buffer))
        buffer[:len(data)] = data
        return len(data)


def _write(stream, first, objects):
    stream.write(json.dumps(first) + "\n")
    for each in objects:
        stream.write(json.dumps(each) + "\n")
    stream.flush()


def _write_file(path, first, objects):
    with whole_file(path) as stream:
        _write(stream, first, objects)


def _summary(path, found):
    yield "{}: {} samples{}".format(path, found.samples, "" if not found.skipped else
                                    ", {} lines without one (the first is line {})".format(
                                        found.skipped, found.first_skipped))
    for notice in found.notices:
        yield "{}: {}".format(path, notice)
