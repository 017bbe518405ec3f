"""Results as JSON: one object a line and window, with the keys of docs/dance-run.md."""
import errno
import json
import os
import sys
import uuid

from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import is_special


def record_from_result(name, window, result, manifest, backend, top_k):
    """The JSON object of one window: a dict of plain Python values. name: the input's; backend: the one that ran it."""
    return {
        "source": name,
        "start_s": _rounded(window.start_s),
        "end_s": _rounded(window.end_s),
        "top": top_labels(result.scores, manifest.model.labels, top_k),
        "kept": [_kept(gate, counts) for gate, counts in zip(manifest.gates, result.kept.tolist())],
        "macs": result.macs,
        "macs_dense": result.macs_dense,
        "bytes": result.bytes,
        "bytes_dense": result.bytes_dense,
        "latency_ms": {key: _rounded(value) for key, value in result.latency_ms._asdict().items()},
        "energy_j": None,
        "backend": backend.name,
        "precision": backend.precision,
    }


def top_labels(scores, labels, count):
    """The `count` best as [{label, score}], best first; equal scores in the order of the labels."""
    order = sorted(range(len(labels)), key=lambda i: -scores[i])[:count]
    return [{"label": labels[i], "score": float(scores[i])} for i in order]


def _kept(gate, counts):
    channels, frames, height, width = gate.input_size
    return {"layer": gate.name, "frames": [counts[0], frames], "channels": [counts[1], channels],
            "features": [counts[2], height * width]}


def _rounded(value):
    return round(float(value), 6)


class JsonLines(object):
    """Where the records go: lines on stdout, lines in a growing file, or a file that appears whole at the end."""

    def __init__(self, path, growing):
        """path: a file, or "-" for stdout; growing: write into the file itself, for sources that never end. A device or
        a pipe (/dev/stdout) always grows.

        Raises InputError where the file cannot be written.
        """
        self._path = path
        self._temporary = None
        self.failed = False  # whether writing failed once: what follows would too
        if path == "-":
            self._stream = sys.stdout
            return
        self._temporary = None if growing or is_special(path) else _beside(path)
        try:
            if not path:
                raise FileNotFoundError(errno.ENOENT, "the name is empty")
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            self._stream = open(self._temporary or path, "w", encoding="utf-8")
        except OSError as error:
            raise InputError("--json '{}' cannot be written: {}".format(path, error.strerror)) from error

    def write(self, record):
        try:
            self._stream.write(json.dumps(record, allow_nan=False) + "\n")
            if self._temporary is None:
                self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error

    def position(self):
        """Where the next record goes; for rewind()."""
        try:
            return self._stream.tell() if self._temporary is not None else None
        except OSError as error:  # tell() writes what is buffered
            raise self._failure(error) from error

    def rewind(self, position):
        """Drop the records after `position`, those of an input that turned out to be damaged. Lines that are out
        already, on stdout or in a growing file, stay."""
        if self._temporary is not None:
            try:
                self._stream.seek(position)
                self._stream.truncate()
            except OSError as error:
                raise self._failure(error) from error

    def finish(self):
        """Put the whole file in place."""
        if self._path == "-":
            return
        try:
            self._stream.close()
            if self._temporary is not None:
                os.replace(self._temporary, os.path.realpath(self._path))
                self._temporary = None
        except OSError as error:
            raise self._failure(error) from error

    def abandon(self):
        """After finish(): nothing. Before: an unfinished file disappears, a growing one keeps its lines."""
        if self._path == "-":
            return
        try:
            self._stream.close()
        except OSError:  # the disk is full; the error was reported when it happened
            pass
        if self._temporary is not None:
            os.remove(self._temporary)
            self._temporary = None

    def _failure(self, error):
        self.failed = True
        return OperationError("--json '{}' could not be written: {}".format(self._path, error.strerror))


def _beside(path):
    folder, name = os.path.split(os.path.realpath(path))
    return os.path.join(folder, ".{}.partial-{}".format(name, uuid.uuid4().hex[:8]))
