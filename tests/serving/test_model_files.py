"""Files that cannot be served are refused at start-up, with what is wrong and what to do."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from infosink.serving.errors import StartupError
from infosink.serving.models.model_file import MAXIMUM_FILE_BYTES
from infosink.serving.models.served_model import find_encoder
from infosink.v1.sampling_service_pb2 import GetModelRequest, ListModelsRequest
from onnx import TensorProto, external_data_helper, helper, numpy_helper


def refused(load_file: Callable, path: Path, **options: object) -> str:
    with pytest.raises(StartupError) as caught:
        load_file(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def image_space(**changes: object) -> str:
    space = {"channels": 1, "height": 8, "width": 8, "minimum": -1, "maximum": 1} | changes
    return json.dumps({"image": space})


def category(**fields: object) -> str:
    return json.dumps({"categories": [{"label": "0"}, fields], "noise_dimensions": 3})


NO_SHARE = "a label_share, sample_share, recovery or agreement is not in"
METADATA = {
    "newer schema": ({"schema_version": "2"}, ["schema version 2", "newer than 1", "upgrade infosink"]),
    "schema no number": ({"schema_version": "one"}, ['schema version "one"', "export it again"]),
    "schema absent": ({"schema_version": None}, ['schema version ""']),
    "role": ({"role": "discriminator"}, ['role "discriminator"', '"generator" nor "encoder"']),
    "name": ({"name": "a/b"}, ['name "a/b"', "A-Z a-z 0-9"]),
    "empty name": ({"name": ""}, ['name ""']),
    "key absent": ({"licence": None, "parity": None}, ["lacks", "infosink.parity, infosink.licence"]),
    "checkpoint": ({"checkpoint_sha256": "ABC"}, ["checkpoint_sha256", "64 lower-case hexadecimal"]),
    "config": ({"config": "{"}, ["config is not a JSON object"]),
    "parity": ({"parity": "[1]"}, ["parity is not a JSON object"]),
    "latent space": ({"latent_space": "{"}, ["unreadable infosink.latent_space"]),
    "latent space type": ({"latent_space": '{"noise_dimensions": -1}'}, ["unreadable infosink.latent_space"]),
    "no categories": ({"latent_space": '{"noise_dimensions": 3}'}, ["0 categories, not 1 to 4096"]),
    "long label": ({"latent_space": json.dumps({"categories": [{"label": "x" * 129}]})}, ["label is longer than 128"]),
    "huge noise": (
        {"latent_space": json.dumps({"categories": [{}], "noise_dimensions": 10**9})},
        ["1000000000 noise dimensions", "10000"],
    ),
    "many styles": (
        {"latent_space": json.dumps({"categories": [{}], "styles": [{}] * 257})},
        ["257 styles", "256"],
    ),
    "share over 1": ({"latent_space": category(label_share=1.01)}, [NO_SHARE, "[0, 1]"]),
    "negative share": ({"latent_space": category(sample_share=-0.1)}, [NO_SHARE]),
    "recovery NaN": ({"latent_space": category(recovery="NaN")}, [NO_SHARE]),
    "agreement over 1": ({"latent_space": category(agreement=1.01)}, [NO_SHARE]),
    "control characters": (
        {"latent_space": '{"styles": "\\u001b[31m"}'},
        ["unreadable infosink.latent_space", "\ufffd"],
    ),
    "no sample space": ({"sample_space": "{}"}, ["neither image nor point"]),
    "two channels": ({"sample_space": image_space(channels=2)}, ["image space does not hold together"]),
    "padding over all": ({"sample_space": image_space(padding_top=8)}, ["image space does not hold together"]),
    "range": ({"sample_space": image_space(minimum=1)}, ["image space does not hold together"]),
    "background": ({"sample_space": image_space(background=256)}, ["image space does not hold together"]),
    "huge card": ({"card": "x" * (2**18 + 1)}, ["card takes 262145 bytes", "262144", "export it again"]),
    "huge config": ({"config": json.dumps({"note": "x" * 2**18})}, ["description takes", "262144"]),
    "other category count": (
        {"latent_space": json.dumps({"categories": [{}], "styles": [{}, {}], "noise_dimensions": 2})},
        ["input noise", "[batch, 3]".replace("batch", "'batch'"), "['batch', 2]"],
    ),
    "other size": ({"sample_space": image_space(height=9)}, ["output sample", "['batch', 1, 9, 8]"]),
    "points": ({"sample_space": '{"point": {"dimensions": 2}}'}, ["output sample", "['batch', 2]"]),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_is_checked(altered: Callable, with_metadata: Callable, load_file: Callable, case: str) -> None:
    changes, parts = METADATA[case]
    path = altered("gen.onnx", with_metadata(**changes))
    message = refused(load_file, path)
    assert str(path) in message
    for part in parts:
        assert part in message


def test_unknown_metadata_and_fields_are_ignored(
    altered: Callable, with_metadata: Callable, load_file: Callable
) -> None:
    latents = {"categories": [{"label": str(k), "colour": "red"} for k in range(4)], "styles": [{}, {}], "later": 1}
    edit = with_metadata(latent_space=json.dumps(latents | {"noise_dimensions": 3}))

    def and_a_new_key(model: onnx.ModelProto) -> None:
        edit(model)
        entry = model.metadata_props.add()
        entry.key, entry.value = "infosink.later", "anything"

    assert load_file(altered("gen.onnx", and_a_new_key)).labels == ("0", "1", "2", "3")


def test_a_card_is_in_the_reply_about_its_model_alone(
    altered: Callable, with_metadata: Callable, load_file: Callable, start_server: Callable, schema_1: Path
) -> None:
    card = "# Ziffern\n\n" + "ä" * (2**17 - 6)
    assert len(card.encode()) == 2**18 - 1
    carded = load_file(altered("gen.onnx", with_metadata(card=card)), name="carded")
    stub = start_server(carded, load_file(schema_1 / "points-gen.onnx")).stub
    reply = stub.GetModel(GetModelRequest())
    assert (reply.served_model.model.name, reply.card) == ("carded", card)
    assert stub.GetModel(GetModelRequest(model="tiny-points")).card == ""
    assert b"Ziffern" not in stub.ListModels(ListModelsRequest()).SerializeToString()


def test_foreign_files_are_refused(tmp_path: Path, altered: Callable, load_file: Callable) -> None:
    def without_metadata(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]

    assert "without infosink's metadata" in refused(load_file, altered("gen.onnx", without_metadata))
    for content in (b"", b"hello, world\n" * 100, b"\x89PNG\r\n\x1a\n"):
        path = tmp_path / "gen.onnx"
        path.write_bytes(content)
        message = refused(load_file, path)
        assert f"{path} is not a model onnxruntime" in message


def test_a_truncated_file_is_refused(tmp_path: Path, schema_1: Path, load_file: Callable) -> None:
    content = (schema_1 / "gen.onnx").read_bytes()
    for length in (1, 10, 100, 1000, len(content) - 1):
        path = tmp_path / "gen.onnx"
        path.write_bytes(content[:length])
        assert str(path) in refused(load_file, path)


@pytest.mark.parametrize("text", [b"tiny-images", b"category", b"pixels", b"OneHot"])
def test_text_that_is_not_utf_8_is_refused(
    tmp_path: Path, schema_1: Path, load_file: Callable, capsys: pytest.CaptureFixture, text: bytes
) -> None:
    content = (schema_1 / "gen.onnx").read_bytes()
    assert text in content
    path = tmp_path / "gen.onnx"
    path.write_bytes(content.replace(text, b"\xff" + text[1:]))
    assert f"{path} is not a model onnxruntime" in refused(load_file, path)
    assert capsys.readouterr().out == ""


def test_paths_are_checked(tmp_path: Path, load_file: Callable) -> None:
    assert "does not exist" in refused(load_file, tmp_path / "gen.onnx")
    assert f"is a folder: name the model file in it, such as {tmp_path / 'gen.onnx'}" in refused(load_file, tmp_path)
    huge = tmp_path / "huge.onnx"
    huge.touch()
    os.truncate(huge, MAXIMUM_FILE_BYTES + 1)
    assert "larger than 1073741824 bytes" in refused(load_file, huge)


def test_weights_outside_the_file_are_not_read(altered: Callable, load_file: Callable, tmp_path: Path) -> None:
    def with_external_weights(model: onnx.ModelProto) -> None:
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
        (tmp_path / "weights").write_bytes(weight.raw_data)
        external_data_helper.set_external_data(weight, "weights")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL

    assert "is not a model onnxruntime" in refused(load_file, altered("gen.onnx", with_external_weights))


def test_roles_are_checked(schema_1: Path, load_file: Callable) -> None:
    assert "is the encoder of a model, not its generator" in refused(load_file, schema_1 / "q.onnx")
    message = refused(load_file, schema_1 / "gen.onnx", encoder=schema_1 / "gen.onnx")
    assert "is the generator of a model, not its encoder: pass it with --model" in message


def test_a_pair_is_of_one_checkpoint(
    schema_1: Path, altered: Callable, with_metadata: Callable, load_file: Callable
) -> None:
    other = altered("q.onnx", with_metadata(checkpoint_sha256="0" * 64))
    message = refused(load_file, schema_1 / "gen.onnx", encoder=other)
    assert f"{other} is of another checkpoint (000000000000…) than {schema_1 / 'gen.onnx'}" in message
    assert "export both from one run" in message


def test_a_pair_is_of_one_space(
    schema_1: Path, altered: Callable, with_metadata: Callable, load_file: Callable
) -> None:
    space = image_space(padding_top=1)
    other = altered("q.onnx", with_metadata(sample_space=space))
    assert "does not describe the same spaces" in refused(load_file, schema_1 / "gen.onnx", encoder=other)


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["pictures" if name == "pixels" else name for name in node.output]
    next(value for value in model.graph.output if value.name == "pixels").name = "pictures"


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1]))


def fix_batch(model: onnx.ModelProto) -> None:
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    dimension.dim_value = 1


def read_int32(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    one_hot = next(node for node in model.graph.node if node.op_type == "OneHot")
    one_hot.input[0] = "wide"
    model.graph.node.insert(0, helper.make_node("Cast", ["category"], ["wide"], to=TensorProto.INT64))


def add_to_sample(model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Adds the value `addend` that `nodes` make to the activation before the last step."""
    tanh = next(node for node in model.graph.node if node.op_type == "Tanh")
    add = helper.make_node("Add", [tanh.input[0], "addend"], ["disturbed"])
    position = list(model.graph.node).index(tanh)
    tanh.input[0] = "disturbed"
    for node in reversed([*nodes, add]):
        model.graph.node.insert(position, node)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def depend_on_batch_size(model: onnx.ModelProto) -> None:
    nodes = [
        helper.make_node("Shape", ["noise"], ["shape"], start=0, end=1),
        helper.make_node("Cast", ["shape"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["size", "little"], ["addend"]),
    ]
    add_to_sample(model, nodes, {"little": np.array(1e-5, np.float32)})


def give_nan(model: onnx.ModelProto) -> None:
    add_to_sample(model, [], {"addend": np.array(np.nan, np.float32)})


def fail(model: onnx.ModelProto) -> None:
    """Adds a lookup outside its table, which shows only in a run."""
    batch = helper.make_node("Shape", ["noise"], ["beyond"], start=0, end=1)
    lookup = helper.make_node("Gather", ["table", "beyond"], ["addend"])
    add_to_sample(model, [batch, lookup], {"table": np.zeros(1, np.float32)})


GRAPHS = {
    "output absent": (rename_output, ["lacks the output pixels"]),
    "input unknown": (add_input, ["unknown input temperature"]),
    "batch fixed": (fix_batch, ["input category", "[1]", "['batch']"]),
    "input type": (read_int32, ["input category", "tensor(int32)", "tensor(int64)"]),
    "batch dependent": (depend_on_batch_size, ["other bytes", "batch of 1 than of 64", "drawn again"]),
    "NaN": (give_nan, ["sample holds values that are not finite", "train or export it again"]),
    "failing": (fail, ["cannot be run", "export it again"]),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_the_graph_is_checked(altered: Callable, load_file: Callable, case: str) -> None:
    edit, parts = GRAPHS[case]
    message = refused(load_file, altered("gen.onnx", edit))
    for part in parts:
        assert part in message


def test_an_encoder_that_depends_on_its_batch_is_refused(
    schema_1: Path, altered: Callable, load_file: Callable
) -> None:
    def depend(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, helper.make_node("Shape", ["sample"], ["shape"], start=0, end=1))
        model.graph.node.insert(1, helper.make_node("Cast", ["shape"], ["size"], to=TensorProto.FLOAT))
        sigmoid = next(node for node in model.graph.node if node.op_type == "Sigmoid")
        position = list(model.graph.node).index(sigmoid)
        model.graph.node.insert(position, helper.make_node("Add", [sigmoid.input[0], "size"], ["disturbed"]))
        sigmoid.input[0] = "disturbed"

    other = altered("q.onnx", depend)
    assert f"{other} gives other bytes" in refused(load_file, schema_1 / "gen.onnx", encoder=other)


def test_the_encoder_beside_a_generator_is_found(schema_1: Path, tmp_path: Path, load_file: Callable) -> None:
    assert find_encoder(schema_1 / "gen.onnx") == schema_1 / "q.onnx"
    assert find_encoder(schema_1 / "points-gen.onnx") == schema_1 / "points-q.onnx"
    assert load_file(schema_1 / "points-gen.onnx").encoder is not None
    for name in ("gen.onnx", "other.onnx"):
        (tmp_path / name).write_bytes((schema_1 / "gen.onnx").read_bytes())
        assert load_file(tmp_path / name).encoder is None
