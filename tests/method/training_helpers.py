"""What the tests of training share."""
import torch

from dance_deploy.geometry import ClipSpec
from dance_deploy.method.training.feed import make_data
from dance_deploy.method.training.run import Request, train

TINY_CLIP = ClipSpec(frames=6, stride=1, resize=(20, 24), size=(20, 24), mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))


class Recorder:
    """A reporter that remembers."""

    def __init__(self):
        self.lines, self.phases, self.epochs, self.long = [], [], [], []

    def phase(self, name, epochs, done):
        self.phases.append((name, epochs, done))

    def step(self, part):
        assert 0.0 < part <= 1.0

    def epoch(self, shown):
        self.epochs.append(shown)

    def progress(self, what):
        self.long.append(what)

    def say(self, line):
        self.lines.append(line)


def train_tiny(splits, out, settings, reporter=None, **options):
    """A run of `small` on tiny clips; options: of Request. Returns its Outcome."""
    data = make_data(splits, TINY_CLIP, settings)
    return train(Request("small", out, settings, **options), data, reporter or Recorder(), torch.device("cpu"))
