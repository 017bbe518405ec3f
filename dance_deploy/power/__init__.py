"""Power sources, sampling, and energy accounting. Device half: numpy only, Python 3.6."""
