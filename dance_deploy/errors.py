"""The errors that a user of the package can meet, and the exit code of each.

Anything else that is raised is a bug of ours and keeps its traceback.
"""


class DanceError(Exception):
    """Base of the errors that carry one line for the user and need no traceback."""

    exit_code = 1


class InputError(DanceError):
    """What the user gave is wrong: a file, a folder, an argument, a tensor's shape. Exit code 2.

    The line says where, what came, what was expected and what to do.
    """

    exit_code = 2


class OperationError(DanceError):
    """The input is good and the work failed all the same: disk full, a check that did not hold. Exit code 1."""


class MissingPackageError(OperationError):
    """An optional package is not installed; names it and the extra that brings it. Exit code 1."""

    def __init__(self, package, extra, what_for):
        super(MissingPackageError, self).__init__(
            "{what} needs the package '{package}', which is not installed; "
            "run: pip install 'dance-deploy[{extra}]'".format(what=what_for, package=package, extra=extra))
        self.package = package
        self.extra = extra
