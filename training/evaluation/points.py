"""Measures of points: the modes of a mixture of Gaussians."""

from __future__ import annotations

from torch import Tensor

from ..datasets.gaussians import Gaussians
from .modes import mode_coverage
from .subject import Findings, Subject

PACGAN_SAMPLES = 2_500


def modes(subject: Subject, findings: Findings) -> None:
    """The PacGAN protocol, for the generator and for the mixture itself."""
    mixture = mixture_of(subject)
    count = min(subject.options.samples, PACGAN_SAMPLES)
    asked = subject.model.configuration.latent_space.category_of(subject.latents[:count])
    points, components = mixture.draw_labelled(count, subject.random("modes"))

    def measured(samples: Tensor, categories: Tensor) -> dict[str, float]:
        return mode_coverage(samples, categories, mixture.centres, mixture.sigma)._asdict()

    findings.counted("modes", generated_samples=count)
    findings.measured("modes", measured(subject.generated[:count], asked), measured(points, components))


def mixture_of(subject: Subject) -> Gaussians:
    """The mixture that the model was trained on."""
    if not isinstance(subject.model.dataset, Gaussians):
        raise TypeError(f"{subject.model.dataset.name} is no mixture of Gaussians")
    return subject.model.dataset
