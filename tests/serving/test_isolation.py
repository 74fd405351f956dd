"""The server speaks to those who call it, and to nobody else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from infosink.v1.sampling_service_pb2 import Draw, InferCodesRequest, SampleRequest
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

LIMIT = 60

CONFINED = """
import ctypes, os, platform, struct, sys

# The numbers of connect, socket, sendto, sendmsg, sendmmsg and io_uring_setup, after the architecture's own.
architecture, connect, socket, sendto, sendmsg, sendmmsg, io_uring_setup = {
    "x86_64": (0xC000003E, 42, 41, 44, 46, 307, 425),
    "aarch64": (0xC00000B7, 203, 198, 206, 211, 269, 425),
}[platform.machine()]
LOAD, IF_EQUAL, IF_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
AF_INET, AF_INET6, SOCK_STREAM, MSG_FASTOPEN = 2, 10, 1, 0x20000000

def argument(position):
    # Its lower half, after the call's number, the architecture and the instruction's address.
    return (LOAD, 0, 0, 16 + 8 * position)

allow, kill = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL_PROCESS)
program = [
    (LOAD, 0, 0, 4), (IF_EQUAL, 1, 0, architecture), kill,
    (LOAD, 0, 0, 0),
    (IF_EQUAL, 0, 1, connect), kill,
    (IF_EQUAL, 0, 1, io_uring_setup), kill,
    # A socket of the internet that is no stream sends without a connection.
    (IF_EQUAL, 0, 8, socket), argument(0), (IF_EQUAL, 1, 0, AF_INET), (IF_EQUAL, 0, 4, AF_INET6),
    argument(1), (AND, 0, 0, 0xF), (IF_EQUAL, 1, 0, SOCK_STREAM), kill, allow,
    # A stream may connect with the first that it sends.
    (IF_EQUAL, 1, 0, sendto), (IF_EQUAL, 0, 3, sendmmsg), argument(3), (IF_ANY_BIT, 0, 5, MSG_FASTOPEN), kill,
    (IF_EQUAL, 0, 3, sendmsg), argument(2), (IF_ANY_BIT, 0, 1, MSG_FASTOPEN), kill,
    allow,
]
instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
filter_program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(instructions)))
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
prctl = ctypes.CDLL(None, use_errno=True).prctl
for option in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SECCOMP, FILTER, filter_program, 0, 0)):
    if prctl(*option):
        sys.exit(f"no system call can be forbidden here: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes the program of its arguments, which the system ends with SIGSYS when it, or a process that it starts, tries
to connect to anything, or makes a socket that could send without a connection. Needs no privilege."""


def confined(*command: str | Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CONFINED, *map(os.fspath, command)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def server(schema_1: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    for name in ("gen.onnx", "q.onnx"):
        (tmp_path / name).write_bytes((schema_1 / name).read_bytes())
    ports = ["--port", "0", "--health-port", "0", "--metrics-port", "0"]
    server = confined(Path(sys.executable).with_name("infosink-serve"), "--model", tmp_path / "gen.onnx", *ports)
    yield server
    server.kill()
    server.communicate()


def test_the_server_connects_to_nobody(server: subprocess.Popen[str], schema_1: Path, tmp_path: Path) -> None:
    ready = server.stdout.readline()
    assert "SERVING tiny-images" in ready, server.communicate(timeout=LIMIT)
    with grpc.insecure_channel(ready.split(" on ")[1].split(",")[0]) as channel:
        stub = SamplingServiceStub(channel)
        batch = stub.Sample(SampleRequest(draw=Draw(count=3)), timeout=LIMIT).batch
        assert len(stub.InferCodes(InferCodesRequest(tensor=batch.tensor), timeout=LIMIT).categories) == 3
    for name in ("gen.onnx", "q.onnx"):
        (tmp_path / name).write_bytes((schema_1 / f"points-{name}").read_bytes())
    server.send_signal(signal.SIGHUP)
    # Its check, in a process of its own, is confined too.
    assert "tiny-images is now served of the checkpoint" in server.stderr.readline()
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=LIMIT)
    assert (server.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("a, b = socket.socketpair(); a.send(b'x'); socket.socket(); socket.socket(socket.AF_INET6)", 0),
        ("socket.socket().connect_ex(('127.0.0.1', 9))", -signal.SIGSYS),
        ("socket.socket(type=socket.SOCK_DGRAM)", -signal.SIGSYS),
        ("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", -signal.SIGSYS),
        ("socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('127.0.0.1', 9))", -signal.SIGSYS),
        ("socket.socket().sendmsg([b'x'], [], socket.MSG_FASTOPEN, ('127.0.0.1', 9))", -signal.SIGSYS),
    ],
)
def test_whoever_would_connect_is_found_out(does: str, code: int) -> None:
    process = confined(sys.executable, "-c", f"import socket; {does}")
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == code, err
