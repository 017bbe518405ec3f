"""What the tests of training share."""
from dance_deploy.geometry import ClipSpec

TINY_CLIP = ClipSpec(frames=6, stride=1, resize=(20, 24), size=(20, 24), mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))


class Recorder:
    """A reporter that remembers."""

    def __init__(self):
        self.lines, self.phases, self.epochs = [], [], []

    def phase(self, name, epochs, done):
        self.phases.append((name, epochs, done))

    def step(self, part):
        assert 0.0 < part <= 1.0

    def epoch(self, shown):
        self.epochs.append(shown)

    def progress(self, what):
        return None

    def say(self, line):
        self.lines.append(line)
