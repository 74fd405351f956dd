"""The client runs with both majors of protobuf that it allows, against a server that has the newer one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MODEL = REPOSITORY / "tests" / "compatibility" / "schema-1" / "gen.onnx"
INTERPRETERS = {7: Path(sys.executable), 6: REPOSITORY / ".venv" / "protobuf6" / "bin" / "python"}
USE = """
import json, sys
import google.protobuf
from infosink.clients import Client
with Client(sys.argv[1]) as client:
    samples = client.sample(5, label="7", style=[0.5, -0.3], seed=1)
    codes = client.infer(samples.samples)
    print(json.dumps({
        "protobuf": int(google.protobuf.__version__.split(".")[0]),
        "samples": samples.samples.tolist(),
        "style": samples.style.tolist(),
        "labels": codes.labels.tolist(),
    }))
"""


@pytest.fixture(scope="module")
def server():
    arguments = [Path(sys.executable).with_name("infosink-serve"), "--model", MODEL, "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split(" on ")[1].split(",")[0]
        process.terminate()


def test_both_majors_speak_the_same(server):
    results = {}
    for major, interpreter in INTERPRETERS.items():
        assert interpreter.exists(), f"{interpreter} is set up by make test"
        done = subprocess.run([interpreter, "-c", USE, server], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results[major] = json.loads(done.stdout)
        assert results[major].pop("protobuf") == major
    assert results[6] == results[7]
    assert len(results[7]["samples"]) == 5
