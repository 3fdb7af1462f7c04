"""A certificate that nobody trusts, made once for each process of the run."""

from __future__ import annotations

import pytest

from tests.relay.certificate import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "IP:127.0.0.1")
