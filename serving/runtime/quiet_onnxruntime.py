"""onnxruntime, loaded so that it sends nothing and writes nothing: what fails arrives as an exception."""

import os

# Read when the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

__all__ = ["NO_LOGS_BUT_FATAL", "onnxruntime"]

NO_LOGS_BUT_FATAL = 4

# What no session owns, such as a CUDA library that is missing, would go to stderr, in red.
onnxruntime.set_default_logger_severity(NO_LOGS_BUT_FATAL)
