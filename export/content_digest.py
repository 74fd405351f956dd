"""The digest of a model file's own content, by which a server knows a damaged one."""

from __future__ import annotations

from hashlib import sha256

from onnx import ModelProto, helper

KEY = "infosink.content_sha256"
_DOC_STRING = f"{KEY} is the SHA-256 of this file with its own 64 digits replaced by zeros."


def serialised(model: ModelProto) -> bytes:
    """The bytes of a model's file, with their digest in its metadata, which is changed in place.

        infosink.content_sha256 = SHA-256(the file, with the 64 digits of this value replaced by zeros)

    The doc_string says so: whoever opens the file finds out how to check it, and a reader that the key should be there,
    also where damage has hit the key itself.

    Args:
        model: complete; a digest that it has already is replaced.
    """
    properties = {entry.key: entry.value for entry in model.metadata_props}
    model.doc_string = _DOC_STRING
    helper.set_model_props(model, properties | {KEY: "0" * 64})
    digest = sha256(model.SerializeToString(deterministic=True)).hexdigest()
    helper.set_model_props(model, properties | {KEY: digest})
    return model.SerializeToString(deterministic=True)
