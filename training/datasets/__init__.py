"""The data that generators learn from: MNIST and its like, Gaussian mixtures in the plane, and folders of images."""

from .catalogue import open_dataset
from .dataset import Dataset, DatasetError, ImageFrame, Split

__all__ = ["Dataset", "DatasetError", "ImageFrame", "Split", "open_dataset"]
