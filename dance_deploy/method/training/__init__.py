"""Training in three phases, dense, AVA, AAP: settings, losses, loop, resumable state, evaluation and calibration."""
