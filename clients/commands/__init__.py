"""The commands of `infosink`, one module each; none imports more than click until it runs."""
