"""Speed against real peers, in one run, as ratios."""
