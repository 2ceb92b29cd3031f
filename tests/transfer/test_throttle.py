"""One rate for several copies."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from snapferry.errors import Stopped
from snapferry.transfer import RateLimiter


def test_several_takers_share_one_rate() -> None:
    limiter, stop = RateLimiter(1_000_000), threading.Event()
    began = time.monotonic()

    def take() -> None:
        for _ in range(10):
            limiter.take(20_000, stop)

    with ThreadPoolExecutor(3) as pool:
        for taker in [pool.submit(take) for _ in range(3)]:
            taker.result()
    seconds = time.monotonic() - began
    assert seconds >= 0.4, "600,000 bytes, less the bucket and what is paid for later, passed too fast"
    assert seconds < 3


def test_a_block_larger_than_the_bucket_passes_and_is_paid_for_after_it() -> None:
    limiter, stop = RateLimiter(1_000_000), threading.Event()
    began = time.monotonic()
    limiter.take(400_000, stop)
    assert time.monotonic() - began < 0.2
    limiter.take(1, stop)
    assert time.monotonic() - began >= 0.25


def test_waiting_ends_at_once_when_stopped() -> None:
    limiter, stop = RateLimiter(10), threading.Event()
    limiter.take(1000, stop)
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        limiter.take(1, stop)
    assert time.monotonic() - began < 1


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="moves nothing"):
        RateLimiter(0)
