"""What a model file says of itself: its metadata, read and checked.

A file carries its description in ONNX `metadata_props`, ten strings prefixed `infosink.`; `latent_space` and
`sample_space` are the JSON of the messages of those names. Two more are optional: `card`, a generator's model card in
Markdown, and `content_sha256`, see content_digest. Unknown strings and fields are ignored: an optional one may be added
without another schema version.
"""

import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import Message
from infosink.v1.model_pb2 import ImageSpace, LatentSpace, Model, SampleSpace

from ..errors import StartupError, one_line, quoted

SCHEMA_VERSION = 1
MAXIMUM_FILE_BYTES = 2**30
MAXIMUM_DESCRIPTION_BYTES = 2**18
"""Of one model, so that GetModel and ListModels stay small."""
MAXIMUM_CARD_BYTES = 2**18
MAXIMUM_CATEGORIES = 4096
MAXIMUM_LABEL_BYTES = 128
MAXIMUM_STYLES = 256
MAXIMUM_NOISE_DIMENSIONS = 10_000
MAXIMUM_SIDE = 4096
MAXIMUM_POINT_DIMENSIONS = 4096

M = TypeVar("M", bound=Message)
Role = Literal["generator", "encoder"]
Signature = Mapping[str, tuple[str, tuple[int, ...]]]
"""For each tensor its element type, as onnxruntime names it, and its shape after the batch dimension."""

_PREFIX = "infosink."
_KEYS = (
    "schema_version",
    "role",
    "name",
    "data_set",
    "latent_space",
    "sample_space",
    "checkpoint_sha256",
    "config",
    "parity",
    "licence",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Description:
    """A model file's description of itself.

    Attributes:
        role: Which of a model's two files it is.
        model: What GetModel and ListModels state.
        card: The model card, in Markdown; empty where the file has none.
    """

    role: Role
    model: Model
    card: str = ""

    @property
    def latent_space(self) -> LatentSpace:
        """The latent space the generator reads."""
        return self.model.latent_space

    @property
    def sample_space(self) -> SampleSpace:
        """The space of the samples."""
        return self.model.sample_space

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one float32 sample: channels, height, width of an image; the dimension of a point."""
        if self.sample_space.HasField("point"):
            return (self.sample_space.point.dimensions,)
        image = self.sample_space.image
        return image.channels, image.height, image.width

    @property
    def inputs(self) -> Signature:
        """What the file's graph must read."""
        if self.role == "encoder":
            return {"sample": ("tensor(float)", self.sample_shape)}
        return {
            "category": ("tensor(int64)", ()),
            "style": ("tensor(float)", (len(self.latent_space.styles),)),
            "noise": ("tensor(float)", (self.latent_space.noise_dimensions,)),
        }

    @property
    def outputs(self) -> Signature:
        """What the file's graph must give, at least."""
        if self.role == "encoder":
            styles = (len(self.latent_space.styles),)
            return {
                "category_probability": ("tensor(float)", (len(self.latent_space.categories),)),
                "style_mean": ("tensor(float)", styles),
                "style_std": ("tensor(float)", styles),
            }
        sample = {"sample": ("tensor(float)", self.sample_shape)}
        if self.sample_space.HasField("point"):
            return sample
        channels, height, width = self.sample_shape
        return sample | {"pixels": ("tensor(uint8)", (height, width, channels))}


def is_model_name(name: str) -> bool:
    """Whether `name` can name a model: 1 to 64 letters, digits, dots, hyphens and underscores."""
    return _NAME.fullmatch(name) is not None


def read_model_file(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        StartupError: If it cannot be read, is no regular file, or is larger than 1 GiB.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise StartupError(f"{path} is a folder: name the model file in it, such as {path / 'gen.onnx'}")
        # To open a pipe would be to wait for whoever writes to it.
        if not stat.S_ISREG(status.st_mode):
            raise StartupError(f"{path} is a pipe or a device: write the model to a regular file")
        if status.st_size > MAXIMUM_FILE_BYTES:
            raise StartupError(f"{path} is larger than {MAXIMUM_FILE_BYTES} bytes, the limit for a model file")
        with path.open("rb") as file:
            return file.read(MAXIMUM_FILE_BYTES)
    except FileNotFoundError:
        raise StartupError(f"{path} does not exist: check the path, or make the file with infosink-export") from None
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from None


def describe(metadata: Mapping[str, str], path: Path) -> Description:
    """Reads and checks a model file's metadata.

    Raises:
        StartupError: If the file is not infosink's, is of a newer schema version, or describes itself wrongly.
    """
    if not any(key.startswith(_PREFIX) for key in metadata):
        raise StartupError(f"{path} is an ONNX file without infosink's metadata: serve one that infosink-export made")
    _check_schema_version(metadata.get(_PREFIX + "schema_version", ""), path)
    missing = [_PREFIX + key for key in _KEYS if _PREFIX + key not in metadata]
    if missing:
        raise StartupError(f"{path} lacks the metadata {', '.join(missing)}: export it again")
    values = {key: metadata[_PREFIX + key] for key in _KEYS}
    description = Description(
        role=_role(values["role"], path),
        model=Model(
            name=values["name"],
            data_set=values["data_set"],
            latent_space=_message(values["latent_space"], LatentSpace(), "latent_space", path),
            sample_space=_message(values["sample_space"], SampleSpace(), "sample_space", path),
            checkpoint_sha256=values["checkpoint_sha256"],
            config_json=values["config"],
            parity_json=values["parity"],
            licence=values["licence"],
        ),
        card=metadata.get(_PREFIX + "card", ""),
    )
    flaw = _flaw(description)
    if flaw:
        raise StartupError(f"{path} describes itself wrongly: {flaw}; export it again")
    return description


def _check_schema_version(version: str, path: Path) -> None:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise StartupError(f"{path} has the schema version {quoted(version)}, not a whole number: export it again")
    if int(version) > SCHEMA_VERSION:
        raise StartupError(
            f"{path} has the schema version {version}, newer than {SCHEMA_VERSION}, the newest known here: "
            "upgrade infosink"
        )


def _role(role: str, path: Path) -> Role:
    if role == "generator":
        return "generator"
    if role == "encoder":
        return "encoder"
    raise StartupError(f'{path} has the role {quoted(role)}, neither "generator" nor "encoder": export it again')


def _message(text: str, message: M, key: str, path: Path) -> M:
    try:
        return Parse(text, message, ignore_unknown_fields=True)
    except ParseError as error:
        raise StartupError(f"{path} has an unreadable infosink.{key} ({one_line(error)}): export it again") from None


def _flaw(description: Description) -> str | None:
    """The first thing wrong with a description; None where nothing is."""
    model, latents, samples = description.model, description.latent_space, description.sample_space
    card_bytes = len(description.card.encode())
    checks = [
        (is_model_name(model.name), f"its name {quoted(model.name)} is not 1 to 64 of A-Z a-z 0-9 . _ -"),
        (_SHA256.fullmatch(model.checkpoint_sha256), "its checkpoint_sha256 is not 64 lower-case hexadecimal digits"),
        (_is_json_object(model.config_json), "its config is not a JSON object"),
        (_is_json_object(model.parity_json), "its parity is not a JSON object"),
        (
            1 <= len(latents.categories) <= MAXIMUM_CATEGORIES,
            f"it has {len(latents.categories)} categories, not 1 to {MAXIMUM_CATEGORIES}",
        ),
        (
            all(len(category.label.encode()) <= MAXIMUM_LABEL_BYTES for category in latents.categories),
            f"a label is longer than {MAXIMUM_LABEL_BYTES} bytes",
        ),
        (
            len(latents.styles) <= MAXIMUM_STYLES,
            f"it has {len(latents.styles)} styles, more than {MAXIMUM_STYLES}",
        ),
        (
            latents.noise_dimensions <= MAXIMUM_NOISE_DIMENSIONS,
            f"it has {latents.noise_dimensions} noise dimensions, more than {MAXIMUM_NOISE_DIMENSIONS}",
        ),
        (
            all(
                0 <= share <= 1
                for category in latents.categories
                for share in (category.label_share, category.sample_share, category.recovery, category.agreement)
            ),
            "a label_share, sample_share, recovery or agreement is not in [0, 1]",
        ),
        (samples.WhichOneof("kind"), "its sample space is neither image nor point"),
        (
            not samples.HasField("point") or 1 <= samples.point.dimensions <= MAXIMUM_POINT_DIMENSIONS,
            f"its points have {samples.point.dimensions} dimensions, not 1 to {MAXIMUM_POINT_DIMENSIONS}",
        ),
        (not samples.HasField("image") or _is_sound(samples.image), "its image space does not hold together"),
        (
            model.ByteSize() <= MAXIMUM_DESCRIPTION_BYTES,
            f"its description takes {model.ByteSize()} bytes, more than {MAXIMUM_DESCRIPTION_BYTES}",
        ),
        (card_bytes <= MAXIMUM_CARD_BYTES, f"its card takes {card_bytes} bytes, more than {MAXIMUM_CARD_BYTES}"),
    ]
    return next((flaw for sound, flaw in checks if not sound), None)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_sound(image: ImageSpace) -> bool:
    return (
        image.channels in (1, 3)
        and 1 <= image.height <= MAXIMUM_SIDE
        and 1 <= image.width <= MAXIMUM_SIDE
        and image.padding_top + image.padding_bottom < image.height
        and image.padding_left + image.padding_right < image.width
        and image.background <= 255
        and math.isfinite(image.minimum)
        and math.isfinite(image.maximum)
        and image.minimum < image.maximum
    )
