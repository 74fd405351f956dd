"""A file's own digest is compared where there is one, and finds every damage; files without one are served as ever."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from infosink.serving.errors import StartupError
from infosink.serving.models.content_digest import verified_sha256
from infosink.serving.models.validate import validate
from infosink.serving.shipped import shipped_models

KEY = "infosink.content_sha256"
REMEDY = ": copy it again, or export it again"
HERE = Path("gen.onnx")


def stating_its_content(source: Path, *, announced: bool = True, entries: int = 1, last: bool = True) -> bytes:
    """A committed file with its digest in its metadata, as infosink-export puts it there."""
    model = onnx.load(source)
    model.doc_string = f"{KEY} is the digest" if announced else ""
    for _ in range(entries):
        model.metadata_props.add(key=KEY, value="0" * 64)
    if not last:
        model.metadata_props.add(key="infosink.later", value="anything")
    content = model.SerializeToString(deterministic=True)
    return content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode())


def refused(content: bytes) -> str:
    with pytest.raises(StartupError) as caught:
        verified_sha256(content, HERE)
    message = str(caught.value)
    assert message.startswith("gen.onnx is damaged: ")
    assert message.endswith(REMEDY)
    assert "\n" not in message
    return message


def test_a_file_that_states_its_content_is_served(schema_1: Path, tmp_path: Path, load_file: Callable) -> None:
    content = {name: stating_its_content(schema_1 / name) for name in ("gen.onnx", "q.onnx")}
    for name, whole in content.items():
        (tmp_path / name).write_bytes(whole)
    model = load_file(tmp_path / "gen.onnx")
    assert model.file_sha256 == tuple(hashlib.sha256(whole).hexdigest() for whole in content.values())
    model.close()


def test_a_file_without_a_digest_is_taken_as_it_is(schema_1: Path) -> None:
    """Those of every schema version, and those that ship, were made before there was one."""
    files = [*schema_1.glob("*.onnx"), *(path for _, path in shipped_models())]
    assert len(files) == 6
    for path in files:
        assert verified_sha256(path.read_bytes(), path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_flipped_bit_is_noticed(schema_1: Path) -> None:
    """By the digest, or because what is left is no ONNX at all."""
    content = bytearray(stating_its_content(schema_1 / "points-q.onnx"))
    taken = []
    for place in range(8 * len(content)):
        content[place // 8] ^= 1 << place % 8
        try:
            verified_sha256(bytes(content), HERE)
            onnx.ModelProto.FromString(bytes(content))
            taken.append(place)
        except (StartupError, DecodeError):
            pass
        content[place // 8] ^= 1 << place % 8
    assert taken == []


def test_every_cut_is_noticed(schema_1: Path) -> None:
    """What ends before the doc_string does has no graph yet."""
    content = stating_its_content(schema_1 / "points-q.onnx")
    announced = content.index(KEY.encode()) + len(f"{KEY} is the digest")
    for length in range(announced, len(content)):
        assert "holds it 0 times" in refused(content[:length])
    for length in range(announced):
        assert verified_sha256(content[:length], HERE) == hashlib.sha256(content[:length]).hexdigest()
        assert b"category_probability" not in content[:length]


def test_the_refusal_says_what_was_stated_and_found(schema_1: Path) -> None:
    content = stating_its_content(schema_1 / "gen.onnx")
    (stated,) = re.findall(rb"content_sha256\x12@([0-9a-f]{64})", content)
    changed = content.replace(b"tiny-images", b"tiny_images")
    found = hashlib.sha256(changed.replace(stated, b"0" * 64)).hexdigest()
    assert refused(changed) == (
        f'gen.onnx is damaged: its content has the SHA-256 "{found[:12]}…", and it states "{stated[:12].decode()}…"'
        f"{REMEDY}"
    )


def test_a_digest_that_is_not_announced_is_compared_too(schema_1: Path) -> None:
    content = stating_its_content(schema_1 / "gen.onnx", announced=False)
    assert verified_sha256(content, HERE) == hashlib.sha256(content).hexdigest()
    assert "its content has" in refused(content.replace(b"tiny-images", b"tiny_images"))


def test_a_digest_covers_what_comes_after_it(schema_1: Path) -> None:
    content = stating_its_content(schema_1 / "gen.onnx", last=False)
    assert verified_sha256(content, HERE) == hashlib.sha256(content).hexdigest()
    assert "its content has" in refused(content.replace(b"anything", b"anythinG"))


def test_a_digest_is_stated_once(schema_1: Path) -> None:
    assert f"should hold {KEY} once, and holds it 2 times" in refused(
        stating_its_content(schema_1 / "gen.onnx", entries=2)
    )


@pytest.mark.parametrize(
    "value", [None, "", "0" * 64, "0" * 65, "\x1b[31m\n"], ids=["absent", "empty", "zeros", "longer", "no digits"]
)
def test_what_is_no_digest_is_no_digest_of_the_content(schema_1: Path, value: str | None) -> None:
    model = onnx.load(schema_1 / "gen.onnx")
    model.metadata_props.add(key=KEY, value=value)
    message = refused(model.SerializeToString())
    assert message.isprintable()


def test_an_upper_case_digest_is_another(schema_1: Path) -> None:
    content = stating_its_content(schema_1 / "gen.onnx")
    (stated,) = re.findall(rb"content_sha256\x12@([0-9a-f]{64})", content)
    refused(content.replace(stated, stated.upper()))


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"r", b"2", b"\x80", b"\xff" * 11, b"\n"])).map(b"".join))
def test_garbage_is_left_to_onnxruntime(content: bytes) -> None:
    assert verified_sha256(content, HERE) == hashlib.sha256(content).hexdigest()


def test_a_reload_refuses_a_damaged_file(schema_1: Path, tmp_path: Path) -> None:
    """In the process that looks at a file before the server does; here one weight is another."""
    content = bytearray(stating_its_content(schema_1 / "gen.onnx"))
    weight = next(each for each in onnx.load(schema_1 / "gen.onnx").graph.initializer if each.name == "weight")
    content[content.index(weight.raw_data) + 100] ^= 1
    path = tmp_path / "gen.onnx"
    path.write_bytes(content)
    with pytest.raises(StartupError, match=f"^{re.escape(str(path))} is damaged: its content has the SHA-256"):
        asyncio.run(validate(path, None, "cpu"))
