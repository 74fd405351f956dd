"""examples/demo.py, as make runs it: the model that ships, served, sampled and read back."""

import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def demo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DEMO, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_demo_draws_what_it_says(tmp_path: Path) -> None:
    shown = demo("new/demo", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "new/demo/seven.png: label 7 (" in shown.stdout
    told, suggested = shown.stdout.partition("\nLook at\n")[2].split("\n\n")
    pictures = [line.split()[0] for line in told.splitlines()]
    assert pictures == [f"new/demo/{name}.png" for name in ("samples", "sevens", "style-1", "style-2")]
    for name in pictures:
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("L").getcolors()) > 100
    assert "infosink models --card" in suggested


def test_an_interrupted_demo_says_so_and_leaves_no_server(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, DEMO, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have told this process, and so its children, to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        while "SERVING" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        # The server holds the other end of stderr as long as it lives.
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; make demo starts again" in err
    assert "Traceback" not in err


def test_a_file_in_the_demos_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    refused = demo(cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == "cannot make the folder demo: File exists; name another\n"
