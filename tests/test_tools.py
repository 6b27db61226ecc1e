"""The tests' own tools put back what the code under test has changed."""

from __future__ import annotations

import signal
import sys

import pytest
from handlers import handlers_put_back, keeping_signals
from tools import survives

import minigpt_lib
from minigpt_lib import char_tokenizer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_test_that_leaves_another_handler_of_a_signal_fails(number):
    before = signal.getsignal(number)

    with pytest.raises(AssertionError, match=number.name), keeping_signals():
        signal.signal(number, signal.SIG_IGN)
    assert signal.getsignal(number) is before

    with keeping_signals():
        signal.signal(number, signal.SIG_IGN)
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_put_back_after_an_error_too(number):
    before = signal.getsignal(number)

    with pytest.raises(ZeroDivisionError), handlers_put_back() as left:
        signal.signal(number, signal.SIG_IGN)
        raise ZeroDivisionError

    assert left == {number: signal.SIG_IGN}
    assert signal.getsignal(number) is before


def test_a_fault_that_does_not_load_leaves_the_installed_module(tmp_path):
    with pytest.raises(ZeroDivisionError):
        survives("01", tmp_path, "class CharTokenizer:", "1 / 0\nclass CharTokenizer:")

    assert sys.modules["minigpt_lib.char_tokenizer"] is char_tokenizer
    assert minigpt_lib.char_tokenizer is char_tokenizer
