"""The server speaks to those who call it, and to nobody else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 170

USE = """
import fcntl, json, signal, socket, struct, subprocess, sys
from pathlib import Path

import grpc
from infosink.v1.sampling_service_pb2 import Draw, InferCodesRequest, SampleRequest
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

command, models = sys.argv[1:]

def bring_loopback_up():
    set_flags, up_and_running = 0x8914, 0x41
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", up_and_running))

def attempts():
    # What was sent, or asked to be connected, to where no route leads, in this namespace.
    names, counts = (line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    version_6 = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return int(dict(zip(names, counts))["OutNoRoutes"]) + int(version_6["Ip6OutNoRoutes"])

def connect(family, address):
    with socket.socket(family) as one:
        try:
            one.connect((address, 443))
        except OSError:
            return
    raise SystemExit(f"{address} can be reached")

bring_loopback_up()
assert attempts() == 0
with subprocess.Popen(
    [command, "--model", models, "--port", "0", "--metrics-port", "0"],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
) as server:
    ready = server.stdout.readline()
    with grpc.insecure_channel(ready.split(" on ")[1].split(",")[0]) as channel:
        stub = SamplingServiceStub(channel)
        batch = stub.Sample(SampleRequest(draw=Draw(count=3))).batch
        stub.InferCodes(InferCodesRequest(tensor=batch.tensor))
    server.send_signal(signal.SIGHUP)
    reloaded = server.stderr.readline()
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate()
served = attempts()
connect(socket.AF_INET, "192.0.2.1")
connect(socket.AF_INET6, "2001:db8::1")
print(json.dumps({
    "ready": ready, "drawn": len(batch.categories), "reloaded": reloaded, "err": err, "code": server.returncode,
    "attempts of the server": served, "attempts of this program": attempts() - served,
}))
"""


@pytest.mark.slow
def test_no_attempt_to_connect_leaves_the_machine(schema_1: Path) -> None:
    """In a network of its own without routes, where the system counts what has nowhere to go.

    Needs the right to make a user namespace.
    """
    command = Path(sys.executable).with_name("infosink-serve")
    alone = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", USE, command, schema_1]
    done = subprocess.run(alone, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "SERVING tiny-images" in said["ready"]
    assert said["drawn"] == 3
    assert "no model has changed" in said["reloaded"]
    assert (said["code"], said["err"]) == (0, "")
    # The count does see what the server does not do.
    assert said["attempts of this program"] == 2
    assert said["attempts of the server"] == 0
