"""infosink-figures as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.figures.command import figures
from infosink.training.figures.selection import quick_settings
from infosink.training.run_directory import RunDirectory
from PIL import Image


def infosink_figures(*words: str | Path) -> Result:
    return CliRunner().invoke(figures, [str(word) for word in words], prog_name="infosink-figures")


def written_run(path: Path, dataset: str = "mnist", options: dict | None = None, **changes: float) -> Path:
    """A run directory that has its settings, and no checkpoint yet."""
    run = RunDirectory.create(path)
    data = {"options": {"data_directory": None}, "facts": {}}
    if dataset != "mnist":
        options = options or {}
        data = {"options": {"data_directory": None} | options, "facts": open_dataset(dataset, **options).describe()}
    run.write_configuration(preset_configuration(dataset, **changes), data)
    return path


def with_checkpoint(path: Path) -> Path:
    """The run with a checkpoint that holds no weights."""
    RunDirectory.open(path).write_checkpoint({}, {"iteration": 1})
    return path


def test_figure_2_shows_that_z1_alone_becomes_informative(tmp_path):
    done = infosink_figures("2", "--quick", "--output", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "quick-figure-2.json",
        "quick-figure-2.png",
    ]
    numbers = json.loads((tmp_path / "figures" / "quick-figure-2.json").read_text())
    plain, convex, strong = numbers["plans"]
    assert plain["I(z1;y) in nats"] == pytest.approx(plain["I(z2;y) in nats"])
    assert plain["I(z1;y) in nats"] + 0.3 < convex["I(z1;y) in nats"]
    assert strong["I(z1;y) in nats"] > 0.7 * numbers["limit of I(z1;y) in nats"]
    assert abs(strong["I(z2;y) in nats"] - plain["I(z2;y) in nats"]) < 0.2
    with Image.open(tmp_path / "figures" / "quick-figure-2.png") as picture:
        assert min(picture.size) > 500
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20


def test_without_runs_it_says_how_to_train_them_and_does_nothing(tmp_path):
    done = infosink_figures("-o", tmp_path / "figures")
    assert done.exit_code == 1
    assert "figures 3 and 4 are drawn from finished runs" in done.output
    assert "infosink-train mnist --preset paper --lambda 0 --output runs/mnist-baseline" in done.output
    assert not (tmp_path / "figures").exists()
    only_four = infosink_figures("4", "-o", tmp_path / "figures")
    assert "figure 4 is drawn" in only_four.output
    assert "gaussians" not in only_four.output


def test_a_run_that_does_not_fit_is_refused_before_any_work(tmp_path):
    fitting = {
        "gaussians": written_run(tmp_path / "a", "gaussians"),
        "gaussians-baseline": written_run(tmp_path / "b", "gaussians", lambda_=0.0),
        "mnist": written_run(tmp_path / "c"),
        "mnist-baseline": written_run(tmp_path / "d", lambda_=0.0),
    }

    def refused(**instead: Path) -> str:
        chosen = fitting | {name.replace("_", "-"): path for name, path in instead.items()}
        words = [word for name, path in chosen.items() for word in (f"--{name}", path)]
        done = infosink_figures("1", "3", "-o", tmp_path / "figures", *words)
        assert done.exit_code == 1
        assert not (tmp_path / "figures").exists()
        return done.output

    assert "has not reached its first checkpoint" in refused()
    assert "it is a run on mnist" in refused(gaussians=fitting["mnist"])
    assert "it is no baseline, with λ 1" in refused(gaussians_baseline=fitting["gaussians"])
    assert "it is a baseline, its λ is 0" in refused(gaussians=fitting["gaussians-baseline"])
    assert "holds no run" in refused(gaussians=tmp_path)


def test_figure_4_alone_needs_two_continuous_codes(tmp_path):
    words = ["--mnist", written_run(tmp_path / "a", styles=1)]
    done = infosink_figures("4", "--quick", "-o", tmp_path / "figures", *words)
    assert done.exit_code == 1
    assert "it has 1 continuous codes and 88 noise variables, and figure 4 moves 2 and 1" in done.output
    done = infosink_figures("3", "--quick", "-o", tmp_path / "figures", *words)
    assert "has not reached its first checkpoint" in done.output


def test_runs_on_different_data_are_not_compared(tmp_path, few_digits):
    words: list[str | Path] = ["--data-dir", few_digits, "--quick"]
    for option, sigma, weight in (("--gaussians", 0.5, 1.0), ("--gaussians-baseline", 0.05, 0.0)):
        path = written_run(tmp_path / option[2:], "gaussians", {"sigma": sigma}, lambda_=weight)
        words += [option, with_checkpoint(path)]
    done = infosink_figures("3", "-o", tmp_path / "figures", *words)
    assert done.exit_code == 1
    assert "are runs on different data, so that the one is no baseline of the other" in done.output
    assert not (tmp_path / "figures").exists()


def test_data_that_cannot_be_had_and_runs_of_another_seed_are_found_before_any_work(tmp_path, few_digits):
    output = tmp_path / "figures"
    done = infosink_figures("--quick", "-o", output, "--data-dir", tmp_path)
    assert done.exit_code == 1
    assert "lacks train-images-idx3-ubyte" in done.output
    assert not output.exists()
    RunDirectory.create(output / "runs" / "quick-mnist").write_configuration(quick_settings("mnist", seed=0), {})
    done = infosink_figures("--quick", "-o", output, "--data-dir", few_digits, "--seed", "1")
    assert done.exit_code == 1
    assert "quick-mnist is a run with other settings (seed)" in " ".join(done.output.split())
    assert sorted(path.name for path in output.rglob("*")) == ["config.json", "quick-mnist", "runs"]


@pytest.mark.parametrize(
    ("absent", "code", "said"),
    [
        ("sys.modules['matplotlib'] = None", 1, "needs matplotlib: install it with pip install 'infosink[evaluation]'"),
        ("sys.modules['torch'] = None", 1, "needs torch: install it with pip install 'infosink[evaluation]'"),
        ("sys.meta_path.insert(0, Interrupting())", 130, "interrupted; figures drawn are whole"),
    ],
)
def test_a_missing_extra_and_an_interrupted_import_are_said_in_one_line(tmp_path, absent, code, said):
    script = f"""
import sys
from infosink.training.figures.command import main
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise KeyboardInterrupt
{absent}
sys.argv = ["infosink-figures", "2"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == code
    (line,) = done.stderr.strip().splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_four_in_quick_versions(tmp_path, mnist_directory):
    done = infosink_figures("--quick", "-o", tmp_path, "--data-dir", mnist_directory)
    assert done.exit_code == 0, done.output
    numbers = [json.loads((tmp_path / f"quick-figure-{number}.json").read_text()) for number in (1, 2, 3, 4)]
    spread = {(panel["loss"], panel["settings"]["ground_cost"]): panel["spread"] for panel in numbers[0]["panels"]}
    for ground_cost in ("l1", "squared-l2"):
        assert spread["smoothed", ground_cost] < 0.5 < spread["sinkhorn", ground_cost]
    purity = [numbers[2][f"gaussians, {name}"]["code-mode purity"] for name in ("baseline", "informative")]
    assert purity[0] < 0.5 < purity[1]
