"""The power sources by name, and which of them this machine offers."""
import shlex
import time
from typing import NamedTuple, Optional, Tuple

from dance_deploy.errors import DanceError, InputError, OperationError
from dance_deploy.power import boards

AUTO = "auto"
# in the order in which "auto" tries them: the board's own sensors first, estimates last
NAMES = ("ina3221", "tegrastats", "rapl", "nvml", "battery")
LOG = "tegrastats-log"
DEFAULT_INTERVAL_S = 0.1


class Offer(NamedTuple):
    """What a source says when it is tried. reason: why it gives nothing and what to do, None where it works."""

    name: str
    reason: Optional[str]
    rails: Tuple[str, ...] = ()
    total_rails: Tuple[str, ...] = ()
    scope: str = ""
    estimate: bool = False
    rails_mw: Optional[dict] = None
    warnings: Tuple[str, ...] = ()


def create(spec, interval_s=None, root="/", clock=time.monotonic):
    """The Source that `spec` names, not opened.

    spec: a name of NAMES, or NAME=WHERE: for tegrastats a command line, for the others the folder that stands for "/";
    or tegrastats-log=FILE, which replays a log at its own pace. interval_s: between samples, None: 0.1 s.
    Raises InputError for a name that there is none of.
    """
    name, _, where = spec.partition("=")
    if name not in NAMES + (LOG,) or (name == LOG and not where):
        raise InputError("power source '{}': there is none of this name; expected {}, one of {}, or {}=FILE".format(
            spec, AUTO, ", ".join(NAMES), LOG))
    if name == LOG:
        from dance_deploy.power.tegrastats_log import TegrastatsLogSource
        return TegrastatsLogSource(where, period_s=interval_s, speed=1.0, clock=clock)
    options = {"interval_s": DEFAULT_INTERVAL_S if interval_s is None else interval_s, "clock": clock}
    if name == "tegrastats":
        return _tegrastats(where, dict(options, root=root))
    if name == "nvml":
        from dance_deploy.power.nvml import NvmlSource
        return NvmlSource(**options)
    return _sysfs_class(name)(root=where or root, **options)


def open_source(spec=AUTO, interval_s=None, total=None, root="/", clock=time.monotonic):
    """The opened Source that `spec` names; "auto": the first of NAMES that works, estimates left out.

    total: labels whose sum is the total, None: what the source or the board's profile says. Raises OperationError where
    it gives nothing, with the reason and what to do, InputError for a rail that there is not.
    """
    if spec != AUTO:
        return _opened(create(spec, interval_s, root, clock), total)
    for name in NAMES:
        try:
            source = _opened(create(name, interval_s, root, clock), total)
        except OperationError:
            continue
        if not source.estimate:
            return source
        source.close()
    raise OperationError("no power source works here; what each of them says: dance-power sources")


def offers(interval_s=None, root="/", clock=time.monotonic):
    """An Offer for each of NAMES, after opening it and taking a sample (two from counters)."""
    return [_offer(name, interval_s, root, clock) for name in NAMES]


def _offer(name, interval_s, root, clock):
    try:
        with create(name, interval_s, root, clock) as source:
            first = source.read()
            rails_mw = first.rails_mw
            if first.energy_j is not None:
                second = source.read()
                rails_mw = {label: 1e3 * (joules - first.energy_j[label]) / (second.time_s - first.time_s)
                            for label, joules in second.energy_j.items() if label in first.energy_j}
            return Offer(name, None, tuple(source.rails), tuple(source.total_rails), source.scope, source.estimate,
                         rails_mw, tuple(source.warnings))
    except DanceError as error:
        return Offer(name, str(error))


def _opened(source, total):
    try:
        source.open()
        if total is not None:
            source.total_rails = _checked_total(total, source)
            source.warnings = [line for line in source.warnings if line != boards.unknown_total(source.rails)]
    except BaseException:
        source.close()
        raise
    return source


def _checked_total(total, source):
    for label in total:
        if label not in source.rails:
            raise InputError("total: power source '{}' has no rail '{}'; there are: {}".format(
                source.name, label, ", ".join(source.rails)))
    return total


def _sysfs_class(name):
    if name == "ina3221":
        from dance_deploy.power.ina3221 import Ina3221Source
        return Ina3221Source
    if name == "rapl":
        from dance_deploy.power.rapl import RaplSource
        return RaplSource
    from dance_deploy.power.battery import BatterySource
    return BatterySource


def _tegrastats(command, options):
    from dance_deploy.power.tegrastats_source import TegrastatsSource
    if command:
        try:
            options = dict(options, command=shlex.split(command))
        except ValueError as error:
            raise InputError("power source 'tegrastats={}': {}".format(command, error)) from error
    return TegrastatsSource(**options)
