"""Labelled videos for training: readers of folders and CSV files, clips as tensors, and a rendered data set.

`import dance_deploy.data` needs no torch; only `ClipDataset` and `to_input` (module `dataset`) do.
"""
from dance_deploy.data.labelled import DataSplits, LabelledVideos
from dance_deploy.data.readers import open_dataset, read_csv, read_folder, select_readable
from dance_deploy.data.rendered import CLASSES, render_clip, render_dataset

__all__ = ["CLASSES", "DataSplits", "LabelledVideos", "open_dataset", "read_csv", "read_folder", "render_clip",
           "render_dataset", "select_readable"]
