"""Sets a sysfs source's total from what profiles/ know of the board, and checks that the labels can be right."""
from dance_deploy.power import boards
from dance_deploy.power.tegrastats import Rail

# rails are read one after the other: one sample may be torn by a burst, the mean of some is not
_SAMPLES = 5


def assign(source, root, sample_mw):
    """Set total_rails and scope of `source`, whose rails are known; where no profile knows them, leave them unset.

    root: the folder that stands for "/"; sample_mw() -> {label: mW} now.
    """
    board = boards.Boards(machine=boards.machine_names(root)).board(tuple(source.rails))
    if board.total is None:
        return
    wrong = boards.contradiction(_mean_rails([sample_mw() for _ in range(_SAMPLES)], source.rails), board)
    if wrong is None:
        source.total_rails = board.total.rails
        source.scope = board.total.scope
    else:
        source.warnings.append(wrong)


def _mean_rails(samples, labels):
    means = {label: sum(sample.get(label, 0.0) for sample in samples) / len(samples) for label in labels}
    return [Rail(label, mean_mw, mean_mw) for label, mean_mw in means.items()]
