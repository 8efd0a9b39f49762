"""One process that has imported everything, for all tests that fork runs from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kill_zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    one = Zygote()
    yield one
    one.close()
