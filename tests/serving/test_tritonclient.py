"""A stock client of the Open Inference Protocol, in a process and an environment of its own, with an older protobuf."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from infosink.oip.open_inference_service_pb2 import DESCRIPTOR
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Code,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    Noise,
    SampleRequest,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
INTERPRETER = REPOSITORY / ".venv" / "protobuf6" / "bin" / "python"
USE = """
import json, sys
import google.protobuf
import numpy as np
import tritonclient.grpc as triton

STYLE = np.array([[0.5, -0.25], [-1, 1], [0, 0]], np.float32)
NOISE = np.array([[0, 1, 2], [-1, 0.5, 0.25], [3, -3, 0]], np.float32)

def tensors(**arrays):
    inputs = []
    for name, array in arrays.items():
        datatype = triton.np_to_triton_dtype(array.dtype)
        inputs.append(triton.InferInput(name, array.shape, datatype).set_data_from_numpy(array))
    return inputs

with triton.InferenceServerClient(sys.argv[1]) as client:
    category = np.array([[0], [3], [1]])
    drawn = client.infer("tiny-images", tensors(category=category, style=STYLE, noise=NOISE), request_id="r1")
    read = client.infer("tiny-images-encoder", tensors(sample=drawn.as_numpy("sample")))
    pixels = client.infer(
        "tiny-images", [], outputs=[triton.InferRequestedOutput("pixels")],
        parameters={"count": 2, "label": "7", "seed": 1},
    )
    points = client.infer("tiny-points", [], parameters={"count": 2, "seed": 1})
    errors = []
    for name, inputs in [("tiny-images", tensors(category=category + 9)), ("cifar", [])]:
        try:
            client.infer(name, inputs)
        except triton.InferenceServerException as error:
            errors.append([error.status(), error.message()])
    try:
        client.load_model("tiny-images")
    except triton.InferenceServerException as error:
        errors.append([error.status(), error.message()])
    print(json.dumps({
        "protobuf": google.protobuf.__version__.split(".")[0],
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models": {name: client.is_model_ready(name) for name in ("tiny-images", "tiny-images-encoder", "cifar")},
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata("tiny-images", as_json=True),
        "config": client.get_model_config("tiny-images", as_json=True)["config"],
        "id": drawn.get_response().id,
        "drawn": {name: drawn.as_numpy(name).tolist() for name in ("sample", "pixels", "category", "style")},
        "read": {
            name: read.as_numpy(name).tolist() for name in ("category_probability", "style_mean", "style_std")
        },
        "pixels": pixels.as_numpy("pixels").tolist(),
        "others": pixels.as_numpy("sample"),
        "seed": pixels.get_response().parameters["seed"].uint64_param,
        "points": points.as_numpy("sample").tolist(),
        "width 0": points.as_numpy("style").shape,
        "errors": errors,
    }))
"""
COMPARE = """
import sys
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2

def flat(messages, prefix=""):
    for message in messages:
        yield prefix + message.name, {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
        yield from flat(message.nested_type, prefix + message.name + ".")

stock = [FileDescriptorProto.FromString(m.DESCRIPTOR.serialized_pb) for m in (service_pb2, model_config_pb2)]
ours = FileDescriptorProto.FromString(sys.stdin.buffer.read())
known = {name: fields for file in stock for name, fields in flat(file.message_type)}
for name, fields in flat(ours.message_type):
    print(name, *sorted(field[0] for field in fields - known[name]))
numbers = {e.name: {(v.name, v.number) for v in e.value} for file in stock for e in file.enum_type}
for enum in ours.enum_type:
    assert {(v.name, v.number) for v in enum.value} == numbers[enum.name]
methods = {(m.name, m.input_type, m.output_type) for m in stock[0].service[0].method}
assert {(m.name, m.input_type, m.output_type) for m in ours.service[0].method} <= methods
"""


def run(script: str, *arguments: str, stdin: bytes = b"", folder: Path | None = None) -> bytes:
    assert INTERPRETER.exists(), f"{INTERPRETER} is set up by make test"
    command = [INTERPRETER, "-c", script, *arguments]
    done = subprocess.run(command, input=stdin, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def said(running) -> dict:
    """What the stock client was told."""
    return json.loads(run(USE, running.address))


def test_it_finds_the_server_and_its_models(said, stub) -> None:
    checkpoint = stub.GetModel(GetModelRequest()).served_model.model.checkpoint_sha256
    assert said["protobuf"] == "6"
    assert (said["live"], said["ready"]) == (True, True)
    assert said["models"] == {"tiny-images": True, "tiny-images-encoder": True, "cifar": False}
    assert said["server"]["name"] == "infosink"
    assert said["metadata"]["versions"] == [checkpoint]
    assert [tensor["name"] for tensor in said["metadata"]["inputs"]] == ["category", "style", "noise"]
    assert said["metadata"]["outputs"][1] == {"name": "pixels", "datatype": "UINT8", "shape": ["-1", "8", "8", "1"]}
    assert said["config"]["max_batch_size"] > 64
    assert said["config"]["input"][1] == {"name": "style", "data_type": "TYPE_FP32", "dims": ["2"], "optional": True}
    assert json.loads(said["config"]["parameters"]["labels"]["string_value"]) == ["0", "1", "1", "7"]


def test_it_samples_and_infers_as_the_native_client(said, stub) -> None:
    drawn = {name: np.array(values) for name, values in said["drawn"].items()}
    noise = np.array([[0, 1, 2], [-1, 0.5, 0.25], [3, -3, 0]], "<f4")
    codes = [
        Code(category=category, style=style)
        for category, style in zip([0, 3, 1], [[0.5, -0.25], [-1, 1], [0, 0]], strict=True)
    ]
    draw = Draw(
        count=3,
        codes=codes,
        noise=Noise(values=Tensor(data_type=DATA_TYPE_FLOAT32, shape=noise.shape, data=noise.tobytes())),
    )
    batch = stub.Sample(SampleRequest(model="tiny-images", draw=draw, encoding=ENCODING_FLOAT32)).batch
    assert said["id"] == "r1"
    assert drawn["sample"].astype("<f4").tobytes() == batch.tensor.data
    assert drawn["category"].tolist() == [[0], [3], [1]]
    assert drawn["pixels"].shape == (3, 8, 8, 1)
    native = stub.InferCodes(InferCodesRequest(model="tiny-images", tensor=batch.tensor))
    for name, values in said["read"].items():
        assert np.array(values, "<f4").tobytes() == getattr(native, name).data


def test_it_draws_by_seed_and_label(said, stub) -> None:
    draw = Draw(count=2, codes=[Code(label="7")], seed=1)
    batch = stub.Sample(SampleRequest(model="tiny-images", draw=draw)).batch
    assert np.array(said["pixels"], np.uint8).tobytes() == batch.tensor.data
    assert (said["seed"], said["others"]) == (1, None)
    points = stub.Sample(SampleRequest(model="tiny-points", draw=Draw(count=2, seed=1))).batch
    assert np.array(said["points"], "<f4").tobytes() == points.tensor.data
    assert said["width 0"] == [2, 0]


def test_it_is_told_what_is_wrong(said) -> None:
    (invalid, value), (not_found, name), (unimplemented, method) = said["errors"]
    assert invalid == "StatusCode.INVALID_ARGUMENT"
    assert "category[0] is 9" in value
    assert not_found == "StatusCode.NOT_FOUND"
    assert '"cifar"' in name
    assert unimplemented == "StatusCode.UNIMPLEMENTED"
    assert "RepositoryModelLoad" in method


def test_every_name_and_number_is_the_protocols() -> None:
    ours = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(ours)
    # Each message with the fields that the stock client has not.
    told = run(COMPARE, stdin=ours.SerializeToString()).decode().splitlines()
    assert "ModelInferRequest.InferInputTensor" in told
    assert [line for line in told if " " in line] == []


def test_the_documentations_example_draws_sevens_and_reads_them_back(
    start_server: Callable, load_file: Callable, tmp_path: Path
) -> None:
    model = load_file(REPOSITORY / "serving" / "released" / "mnist-gen.onnx")
    server = start_server(model)
    text = (REPOSITORY / "docs" / "open-inference.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    assert "127.0.0.1:50051" in example
    told = run(example.replace("127.0.0.1:50051", server.address), folder=tmp_path).decode().split("]")
    drawn, read = ([int(category) for category in part.strip(" [").split()] for part in told[:2])
    assert [model.labels[category] for category in drawn] == ["7"] * 8
    assert read == drawn
    with Image.open(tmp_path / "sevens.png") as image:
        assert image.size == (8 * 32, 32)
