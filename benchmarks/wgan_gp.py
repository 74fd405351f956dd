"""WGAN-GP (Gulrajani et al. 2017) with the generator of Table 3, measured as infosink-evaluate measures samples.

usage: python benchmarks/wgan_gp.py [--seconds 1800 | --iterations N] [--precision bfloat16]
                                    [--split validation --hold-out 10000] [--output docs/wgan-gp]

The generator is Table 3's, on 100 normal latents, as many as Table 2 has dimensions. The critic is the
trunk of Table 3 and one linear output, without batch norm, which the gradient penalty does not allow,
and with nothing in its place. Everything else is as published: 5 critic updates for each of the
generator, λ = 10, Adam (1e-4; 0, 0.9), batch 64. Leaves OUTPUT.json and OUTPUT.png, samples of fixed
latents. The time is that of training alone. Ctrl-C keeps the state in runs/NAME.safetensors, NAME being
OUTPUT's last part, from which the same command goes on; when all is done, it is removed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from infosink.training.datasets import Dataset, DatasetError, open_dataset
from infosink.training.evaluation.classifier import RECIPE, ClassifierError, IndependentClassifier, load_classifier
from infosink.training.evaluation.quality import frechet_distance, manifold_coverage
from infosink.training.evaluation.subject import BATCH, draw_real
from infosink.training.networks import image_generator, image_trunk, recompute_running_statistics
from infosink.training.pictures import image_grid
from infosink.training.randomness import derived_seed, stream
from infosink.training.replacement import replace_file
from provenance import provenance
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

LATENTS = 100
CRITIC_STEPS = 5
PENALTY = 10.0
LEARNING_RATE = 1e-4
BETAS = (0.0, 0.9)
STATISTICS = (20, 500)  # batches and their size, for the generator's batch norm, as for a run that is evaluated
PROGRESS = ("iteration", "seconds", "processor_seconds", "curve")
REPORT_EVERY = 15.0  # seconds of training
KEEP_EVERY = 300.0


class WassersteinGAN:
    """A generator and its critic in training.

    Attributes:
        iteration: the number of generator updates done.
        seconds: of training, the critic's included.
        processor_seconds: the same as the processor counts them, all threads together, however busy the machine is.
        curve: the critic's estimate of W₁ now and then.
    """

    def __init__(self, dataset: Dataset, batch_size: int, precision: torch.dtype, seed: int) -> None:
        self.dataset, self.batch_size, self.precision = dataset, batch_size, precision
        channels = dataset.sample_shape[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "weights"))
            self.generator = image_generator(LATENTS, channels)
            trunk = (layer for layer in image_trunk(channels, 1024) if "BatchNorm" not in type(layer).__name__)
            self.critic = nn.Sequential(*trunk, nn.Linear(1024, 1))
        self.optimisers = {
            "generator": torch.optim.Adam(self.generator.parameters(), LEARNING_RATE, BETAS, fused=True),
            "critic": torch.optim.Adam(self.critic.parameters(), LEARNING_RATE, BETAS, fused=True),
        }
        self.random = stream(seed, "training")
        self.iteration, self.seconds, self.processor_seconds = 0, 0.0, 0.0
        self.curve: list[dict[str, float]] = []

    def iterate(self) -> float:
        """Updates the critic five times and the generator once; gives the critic's last estimate of W₁."""
        started, processor_started = time.perf_counter(), time.process_time()
        for _ in range(CRITIC_STEPS):
            estimate = self._update_critic()
        self._update_generator()
        self.iteration += 1
        self.seconds += time.perf_counter() - started
        self.processor_seconds += time.process_time() - processor_started
        return estimate

    def _update_critic(self) -> float:
        """One step on E f(x) − E f(y) + λ E (‖∇f(u)‖₂ − 1)², u between y ~ ν and x = G(z)."""
        y = self.dataset.draw(self.batch_size, self.random)
        with torch.no_grad():
            x = self._generated()
        share = torch.rand(len(y), 1, 1, 1, generator=self.random)
        u = torch.lerp(y, x, share).requires_grad_()
        estimate = self._scores(y).mean() - self._scores(x).mean()
        (gradient,) = torch.autograd.grad(self._scores(u).sum(), u, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        self._step("critic", PENALTY * penalty - estimate)
        return float(estimate.detach())

    def _update_generator(self) -> None:
        """One step on −E f(G(z))."""
        self.critic.requires_grad_(False)
        self._step("generator", -self._scores(self._generated()).mean())
        self.critic.requires_grad_(True)

    def _step(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    def _generated(self) -> Tensor:
        latents = torch.randn(self.batch_size, LATENTS, generator=self.random)
        with self._autocast():
            return self.generator(latents).float()

    def _scores(self, images: Tensor) -> Tensor:
        with self._autocast():
            return self.critic(images).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next iteration depends on."""
        tensors = {"random": self.random.get_state()}
        for name, optimiser in self.optimisers.items():
            network = getattr(self, name)
            tensors |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
            for index, entry in optimiser.state_dict()["state"].items():
                tensors |= {f"{name} moments.{index}.{key}": tensor for key, tensor in entry.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of state."""
        for name, optimiser in self.optimisers.items():
            getattr(self, name).load_state_dict(_below(tensors, f"{name}."))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _below(tensors, f"{name} moments.").items():
                index, kind = key.split(".")
                moments.setdefault(int(index), {})[kind] = tensor
            optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        self.random.set_state(tensors["random"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def sample(generator: nn.Module, latents: Tensor) -> Tensor:
    """Images of latents, by running statistics of the batch norm."""
    return torch.cat([generator(batch) for batch in torch.split(latents, BATCH)])


def inference_generator(model: WassersteinGAN, seed: int) -> nn.Module:
    """The generator with batch-norm statistics of its final weights, as a run's is read back; always in float32."""
    count, size = STATISTICS
    random = stream(seed, "reading back")
    recompute_running_statistics(model.generator, (torch.randn(size, LATENTS, generator=random) for _ in range(count)))
    return model.generator.eval()


def measure(
    generator: nn.Module, dataset: Dataset, classifier: IndependentClassifier, asked: argparse.Namespace
) -> tuple[dict[str, float], dict[str, float]]:
    """The quality of samples and, in their place, of training images, as infosink-evaluate draws and compares them."""

    def random(purpose: str) -> torch.Generator:
        return stream(asked.evaluation_seed, f"evaluation: {purpose}")

    real = draw_real(dataset, asked.split, asked.samples, random("real samples"))
    training = draw_real(dataset, "training", asked.samples, random("training samples"))
    count = min(len(real), len(training))
    generated = sample(generator, torch.randn(asked.samples, LATENTS, generator=random("samples")))
    real, generated, training = (classifier.features(images[:count]) for images in (real, generated, training))
    found, reference = (
        {"frechet_distance": frechet_distance(features, real), **manifold_coverage(real, features)._asdict()}
        for features in (generated, training)
    )
    return found, reference


def checkpoint(path: Path, model: WassersteinGAN, header: dict[str, Any]) -> None:
    """Writes the state, whole or not at all."""
    facts = header | {name: getattr(model, name) for name in PROGRESS}
    replace_file(path, save(model.state(), {"wgan-gp": json.dumps(facts)}))


def resume(path: Path, model: WassersteinGAN, header: dict[str, Any]) -> dict[str, Any]:
    """Takes up the state that lies there, if any; gives the header, with the commits of the earlier parts too."""
    if not path.exists():
        return header
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["wgan-gp"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        if facts["settings"] != header["settings"] or facts["data"] != header["data"]:
            sys.exit(f"{path} is of other settings or data: remove it, or name another --output")
        model.restore(tensors)
        for name in PROGRESS:
            setattr(model, name, facts[name])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        sys.exit(f"{path} is damaged ({error}): remove it to begin again")
    print(f"going on from {path} at iteration {model.iteration:,}, {model.seconds:.0f} s", file=sys.stderr)
    return header | {"commits": sorted({*facts["commits"], *header["commits"]})}


def train(model: WassersteinGAN, asked: argparse.Namespace, path: Path, header: dict[str, Any]) -> None:
    """Iterates as long as was asked for, and reports; a signal leaves the state and ends the process."""
    reported = kept = model.seconds
    with stop_signal() as stopped:
        while not finished(model, asked):
            estimate = model.iterate()
            if estimate != estimate:  # NaN
                sys.exit(f"training diverged at iteration {model.iteration:,}; try --precision float32")
            if model.seconds - reported >= REPORT_EVERY or finished(model, asked):
                reported = model.seconds
                model.curve.append(
                    {"iteration": model.iteration, "seconds": round(reported, 1), "wasserstein": estimate}
                )
                print(json.dumps(model.curve[-1]), file=sys.stderr, flush=True)
            if stopped or model.seconds - kept >= KEEP_EVERY:
                kept = model.seconds
                checkpoint(path, model, header)
            if stopped:
                print(f"stopped at iteration {model.iteration:,}: the same command goes on from there", file=sys.stderr)
                sys.exit(128 + stopped[0])


def finished(model: WassersteinGAN, asked: argparse.Namespace) -> bool:
    """Whether it was trained as long as was asked for."""
    if asked.iterations is not None:
        return model.iteration >= asked.iterations
    return model.seconds >= asked.seconds


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """Within, Ctrl-C and SIGTERM only put their number into the list; a second one ends the process as ever.

    What is ignored stays so, as by a shell for what runs behind it.
    """
    stopped: list[int] = []

    def note(number: int, _: object) -> None:
        stopped.append(number)
        signal.signal(number, earlier[number])

    numbers = (each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN)
    earlier = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def asked_for() -> argparse.Namespace:
    """The command line, refused where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=1_800.0, help="of training [default: 1800]")
    length.add_argument("--iterations", type=int, help="of the generator, in place of --seconds")
    parser.add_argument("--dataset", choices=("mnist", "fashion-mnist"), default="mnist")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold-out", type=int, help="training images to keep for validation")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--evaluation-seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/wgan-gp"), help="without suffix")
    asked = parser.parse_args()
    for name, least in (("batch_size", 2), ("iterations", 1), ("samples", 129), ("seed", 0), ("evaluation_seed", 0)):
        if (value := getattr(asked, name)) is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} {value}: at least {least}")
    if not 0 < asked.seconds < float("inf"):
        parser.error(f"--seconds {asked.seconds:g}: more than 0")
    return asked


def classifier_progress(text: str, share: float) -> None:
    """Prints every tenth of the work."""
    if round(share * RECIPE.iterations) % (RECIPE.iterations // 10) == 0:
        print(f"{text}: {share:.0%}", file=sys.stderr, flush=True)


def main() -> None:
    """Trains, measures and writes."""
    asked = asked_for()
    origin = provenance("torch", "numpy")  # of the code that runs, whatever is edited meanwhile
    try:
        dataset = open_dataset(asked.dataset, hold_out=asked.hold_out)
        dataset.batches(asked.split, 1)
        classifier = load_classifier(dataset, classifier_progress)
        for folder in (asked.output.parent, Path("runs")):
            folder.mkdir(parents=True, exist_ok=True)
    except (DatasetError, ClassifierError, OSError) as error:
        sys.exit(str(error))
    names = ("batch_size", "precision", "seed")
    fixed = {"critic_steps": CRITIC_STEPS, "penalty": PENALTY, "learning_rate": LEARNING_RATE, "adam_betas": BETAS}
    settings = {name: getattr(asked, name) for name in names} | fixed | {"latents": LATENTS}
    header = json.loads(json.dumps({"settings": settings, "data": dataset.describe(), "commits": [origin["commit"]]}))
    model = WassersteinGAN(dataset, asked.batch_size, getattr(torch, asked.precision), asked.seed)
    kept = Path("runs", f"{asked.output.name}.safetensors")  # 200 MB, which docs should not see
    header = resume(kept, model, header)
    train(model, asked, kept, header)
    checkpoint(kept, model, header)  # what fails below must not cost the training
    generator = inference_generator(model, asked.seed)
    measures, reference = measure(generator, dataset, classifier, asked)
    facts = {
        **origin,
        **header,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "iterations": model.iteration,
        "seconds": model.seconds,
        "processor_seconds": model.processor_seconds,
        "samples": asked.samples,
        "split": asked.split,
        "classifier": {"sha256": classifier.sha256, "test_accuracy": classifier.test_accuracy},
        "measures": measures,
        "training_images_in_their_place": reference,
        "curve": model.curve,
    }
    picture = image_grid(sample(generator, torch.randn(100, LATENTS, generator=stream(asked.seed, "pictures"))), 10)
    picture.save(f"{asked.output}.png")
    Path(f"{asked.output}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    kept.unlink()
    print(json.dumps({"iterations": model.iteration, "seconds": round(model.seconds), **measures}))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
