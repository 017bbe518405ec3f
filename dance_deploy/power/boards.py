"""Which board's sensors these are, and which of them make the total: profiles/ know, the labels that are there decide.

Labels alone do not always tell boards apart (Xavier NX and Orin have the same three), but then they agree on the total.
"""
from typing import NamedTuple, Optional, Tuple

from dance_deploy import profiles
from dance_deploy.machine import machine_names as machine_names

# tegrastats prints it for channels that are not connected
NOT_CONNECTED = "NC"


class Board(NamedTuple):
    """profiles: names of those that fit, sorted; total: profiles.Total or None where the labels do not tell it;
    parts: labels of the rails that the total's input rail feeds, () where the total is a sum."""

    profiles: Tuple[str, ...]
    total: Optional[profiles.Total]
    parts: Tuple[str, ...] = ()


class Boards(object):
    """The boards of a folder of profiles.

    root: folder of the profiles, None: the package's. machine: machine_names() of the board; where a profile fits
    them the others are passed over, and labels that it does not list are allowed.
    """

    def __init__(self, root=None, machine=()):
        loaded = [profiles.load(name, root) for name in profiles.names(root)]
        self._known = [(p.name, p.power) for p in loaded if p.power is not None]
        self._of_machine = [(name, power) for name, power in self._known if profiles.fits(machine, power.compatible)]
        self._by_labels = {}

    def board(self, labels):
        """The Board whose sensors have these labels (in any order, NC and repeated ones included)."""
        found = self._by_labels.get(labels) if type(labels) is tuple else None
        if found is None:
            found = self._find(frozenset(labels) - {NOT_CONNECTED})
            if len(self._by_labels) < 1000:  # a log of garbage has no end of label sets
                self._by_labels[tuple(labels)] = found
        return found

    def _find(self, labels):
        # a log of another board may be read on this one
        fitting = [(name, power) for name, power in self._of_machine if _first_total(power, labels)] or \
            [(name, power) for name, power in self._known if labels and labels <= set(power.rails)]
        totals = {_first_total(power, labels) for _, power in fitting}
        names = tuple(name for name, _ in fitting)
        total = totals.pop() if len(totals) == 1 else None
        if total is None:
            return Board(names, None)
        feeds = fitting[0][1].feeds.get(total.rails[0], ()) if len(total.rails) == 1 else ()
        return Board(names, total, tuple(label for label in feeds if label in labels))


def total_mw(rails, board):
    """(sum of the total's rails in mW, None), or (None, why there is no total) for one sample.

    rails: tegrastats.Rail in printed order.
    """
    if board.total is None:
        return None, unknown_total([rail.label for rail in rails])
    wrong = contradiction(rails, board)
    if wrong is not None:
        return None, wrong
    now = {rail.label: rail.now_mw for rail in rails}
    return sum(now[label] for label in board.total.rails), None


def contradiction(rails, board):
    """The line that says so where the total's input rail is below the sum of the rails that it feeds, else None.

    Both the instantaneous values and the averages must say it: rails are not read at the same moment. The cause seen
    is a carrier whose device tree permutes the names.
    """
    if not board.parts:
        return None
    source = board.total.rails[0]
    now = {rail.label: rail.now_mw for rail in rails}
    avg = {rail.label: rail.avg_mw for rail in rails}
    if now[source] >= sum(now[label] for label in board.parts) \
            or avg[source] >= sum(avg[label] for label in board.parts):
        return None
    return ("rail {} reads {:g} mW, less than the {:g} mW of {} that it feeds: the labels are permuted here; "
            "find out which is which and name the total with --total".format(
                source, now[source], sum(now[label] for label in board.parts), " + ".join(board.parts)))


def unknown_total(labels):
    """The line for labels that no profile knows."""
    return "which rail is this board's total is not known; there are {}; name it with --total".format(
        ", ".join(labels) or "none")


def _first_total(power, labels):
    return next((total for total in power.totals if labels >= set(total.rails)), None)
