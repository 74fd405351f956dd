"""The data that generators learn from: MNIST, two-dimensional Gaussian mixtures, and folders of images."""

from .catalogue import open_dataset
from .dataset import Dataset, DatasetError, ImageFrame, Split

__all__ = ["Dataset", "DatasetError", "ImageFrame", "Split", "open_dataset"]
