"""dance-run --report: collects what a run gave and writes its page at the end."""
from dance_deploy.cli import entry
from dance_deploy.errors import InputError, OperationError

_LABELS = 3


def opened_log(path, json_path):
    """A RunLog for the page at `path`, None without one. Raises InputError where no page can be written there."""
    if path is None:
        return None
    from dance_deploy.files import check_writable, same_file
    from dance_deploy.report.page import check_page_path
    from dance_deploy.report.run_log import RunLog
    check_page_path(path)
    check_writable(path)
    if same_file(path, json_path):
        raise InputError("--report and --json name the same file '{}'; give each its own".format(path))
    return RunLog()


def end_video(log, tally, labels, video_energy, error):
    """The video is whole. tally: its VideoTally; labels: of all classes; video_energy, error: of --power, or None."""
    from dance_deploy.cli.run_power import energy_note
    from dance_deploy.runtime.records import top_labels
    if tally.windows:
        log.end_video(top_labels(tally.scores / tally.windows, labels, _LABELS), video_energy,
                      None if video_energy is None else energy_note(video_energy, error))


def write_report(log, path, bundle, runner, mode, power):
    """Write the page; returns 0, or where that fails the exit code, after saying so: the JSON lines must not be lost.

    mode: "dense" or the budget in words; power: what --power names, or None.
    """
    from dance_deploy.report.page import write_page
    from dance_deploy.report.run_page import RunFacts, run_page
    model, backend = runner.manifest.model, runner.backend
    facts = RunFacts(bundle, model.name, len(model.labels), model.trained, "{}: {}".format(
        backend.name, backend.description), mode, power)
    try:
        write_page(run_page(facts, log), path)
    except OperationError as error:
        return entry.fail(error)
    return 0


class Sinks(object):
    """Passes records on to several places."""

    def __init__(self, *sinks):
        self._sinks = [sink for sink in sinks if sink is not None]

    def __bool__(self):
        return bool(self._sinks)

    def write(self, record):
        for sink in self._sinks:
            sink.write(record)
