"""Certificates, made once for each process of the run; and relays of two kinds."""

from __future__ import annotations

import pytest

from tests.relay.certificate import Certificate, make_certificate
from tests.relay.scripted import EXTENSIONS, ONE_AT_A_TIME


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "IP:127.0.0.1")


@pytest.fixture(scope="session")
def certificate_of_another(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("another"), "DNS:another.example")


@pytest.fixture(params=[EXTENSIONS, ONE_AT_A_TIME], ids=["pipelined", "one_at_a_time"])
def extensions(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What the relay offers: with PIPELINING and without."""
    offered: tuple[str, ...] = request.param
    return offered
