"""Which rails make up a board's total: what profiles/ know, by the labels that are there."""


def assign(source):
    """Set total_rails and scope of a source whose rails are known; leaves them where no profile knows the labels."""
