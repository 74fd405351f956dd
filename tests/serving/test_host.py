"""--host names an interface, and nothing else that gRPC could listen on."""

import click
import pytest
from infosink.serving.command import main


@pytest.mark.parametrize("host", ["unix", "unix-abstract", "vsock", "dns", "ipv4", "ipv6", "xds", "google-c2p"])
def test_a_scheme_is_no_host(host: str) -> None:
    with pytest.raises(click.UsageError, match=f"{host} is a scheme of URIs to gRPC: name an interface") as caught:
        main.make_context("infosink-serve", ["--host", host])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("host", ["localhost", "unix.example", "0.0.0.0", "::1", "fe80::1%eth0"])
def test_a_name_or_an_address_is_one(host: str) -> None:
    assert main.make_context("infosink-serve", ["--host", host]).params["host"] == host
