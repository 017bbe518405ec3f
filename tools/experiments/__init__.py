"""Training experiments that anyone can repeat: named settings x seeds x folds, raw metrics, one report.

    python -m tools.experiments weizmann --data DIR --runs FOLDER

trains what is not there yet (an interrupted run goes on), measures the checkpoints and writes docs/experiments.
"""
