"""An answer that harms what comes after it: each fault gets its own words, and the next check is unharmed."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from courseware.exercises.engine import Exercise, judge
from courseware.exercises.tasks import Task

SOURCE = "def f(x):\n    return sorted(x)"
TASK = Task("order", "Order", 1, 1, "f", SOURCE, SOURCE)


def probe(answer):
    yield "[3, 1, 2]", answer([3, 1, 2])


def order(seconds=2.0):
    return Exercise("order", probe, ("a",), "", own_task=TASK, seconds=seconds)


def right(x):
    return sorted(x)


def replaces_softmax(x):
    torch.softmax = torch.sigmoid
    torch.Tensor.softmax = None
    math.sqrt = lambda value: value
    return sorted(x)


def replaces_sorted(x):
    import builtins

    builtins.sorted = list
    return [1, 2, 3]


def changes_settings(x):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    os.chdir("/")
    np.seterr(all="raise")
    return sorted(x)


def seeds_and_draws(x):
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    return sorted(x)


def takes_two_gigabytes(x):
    return torch.zeros(2**29)


def grows(x):
    kept = []
    while True:
        kept.append(bytearray(10_000_000))


def swallows_everything(x):
    while True:
        try:
            while True:
                pass
        except:  # noqa: E722
            continue


def prints_without_end(x):
    for i in range(100_000):
        print("step", i)
    return sorted(x)


def breaks_the_streams(x):
    sys.stdout = None
    os.environ["PATH"] = ""
    return sorted(x)


FAULTS = [
    (replaces_softmax, "changed something global", "torch.softmax"),
    (replaces_sorted, "changed something global", "builtins.sorted"),
    (changes_settings, "changed something global", "torch.set_default_dtype"),
    (seeds_and_draws, "", ""),
    (takes_two_gigabytes, "too much memory", "return torch.zeros(2**29)"),
    (grows, "too much memory", "kept.append(bytearray(10_000_000))"),
    (swallows_everything, "too slow or endless", "never ends"),
    (prints_without_end, "", ""),
    (breaks_the_streams, "", ""),
]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "diagnosis", "words"), FAULTS)
def test_a_fault_is_named_and_the_next_check_is_unharmed(answer, diagnosis, words, capsys):
    if answer in (takes_two_gigabytes, grows) and not os.path.exists("/proc/self/statm"):
        pytest.skip("this system does not say how much memory a process has")

    before = world()
    verdict = judge(order(2.0 if answer is swallows_everything else 30.0), answer)
    assert verdict.diagnosis == diagnosis and words in verdict.message, verdict
    assert world() == before
    assert len(capsys.readouterr().out) < 1200
    assert judge(order(), right).kind == "right"


def world():
    """Return what an answer could have changed."""
    return (
        [torch.softmax, math.sqrt, sorted, sys.stdout, os.getcwd(), dict(os.environ), np.geterr()],
        [torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()],
        [random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()],
        [torch.tensor([0.0]).softmax(0).item(), torch.get_default_device()],
    )


@pytest.mark.slow
def test_a_with_block_of_an_endless_answer_is_left_whole():
    put_back = []

    class Slow:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            end = time.monotonic() + 0.7
            while time.monotonic() < end:
                pass
            put_back.append(True)

    def answer(x):
        with Slow():
            while True:
                pass

    assert judge(order(0.2), answer).diagnosis == "too slow or endless"
    assert put_back == [True], "the time limit struck again in the middle of __exit__"


def test_an_endless_loop_is_left_soon_even_if_it_swallows_everything():
    begin = time.monotonic()
    assert judge(order(0.3), swallows_everything).diagnosis == "too slow or endless"
    assert time.monotonic() - begin < 5
    assert sys.gettrace() is None


def test_the_learners_own_ctrl_c_goes_through():
    def waits(x):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2)

    # A process that a script started with `&` ignores Ctrl-C; a kernel does not.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        before = world()
        with pytest.raises(KeyboardInterrupt):
            judge(order(), waits)
        assert world() == before and judge(order(), right).kind == "right"
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_check_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(judge(order(), right).kind))
    thread.start()
    thread.join()
    assert found == ["right"]


def test_a_wrong_answer_that_replaces_something_is_told_so():
    def breaks_and_fails(x):
        math.sqrt = None
        return x

    verdict = judge(order(), breaks_and_fails)
    assert verdict.diagnosis == "changed something global" and "`math.sqrt`" in verdict.message
