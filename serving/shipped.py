"""The models that ship with infosink, in the folder `released` beside this module."""

from pathlib import Path

SHIPPED = ("mnist", "gaussians")
"""By name, the default first: each is a generator, NAME-gen.onnx, and its encoder, NAME-q.onnx."""

_FOLDER = Path(__file__).with_name("released")


def shipped_models() -> list[tuple[str, Path]]:
    """Each one's name and its generator's file, the default first; one that is not there is left out."""
    models = [(name, _FOLDER / f"{name}-gen.onnx") for name in SHIPPED]
    return [(name, path) for name, path in models if path.is_file()]
