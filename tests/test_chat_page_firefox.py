"""`make chat` in Firefox: ask, stop, retry, edit, undo, settings, two models, and a page that is loaded again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import firefox as firefoxes
import pytest
from chat_servers import EXAMPLES, PATIENCE, Script, save_model, serve
from firefox import Firefox

from minigpt_lib.generation import TextGenerator

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ENTER, ESCAPE = "\ue007", "\ue00c"  # of WebDriver's keys
IDLE = "state.running === null"
TURNS = """JSON.stringify([...document.querySelectorAll("#turns > .turn")].map(
    (turn) => [...turn.querySelectorAll(".said")].map((said) => said.textContent)))"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return what all models say during a test."""
    script = Script()
    monkeypatch.setattr(TextGenerator, "stream", lambda self, *a, **o: script.stream(*a, **o))
    return script


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve the page with two models; yield its address."""
    for name in ("14_sft", "15_preferences"):
        save_model(tmp_path / "models" / name)
    address, end = serve(tmp_path / "models")
    yield address
    end()


def labelled(name: str) -> str:
    """Return an expression that finds the button with this label."""
    buttons = '[...document.querySelectorAll("button")]'
    return f"{buttons}.find((one) => nameOf(one) === {json.dumps(name)} && one.offsetParent)"


async def turns(firefox: Firefox) -> list[list[str]]:
    """Return the turns: the question, and the text of each answer that is shown."""
    return json.loads(await firefox.evaluate(TURNS))


async def ask(firefox: Firefox, text: str) -> None:
    """Ask, and wait for the whole answer."""
    await firefox.type(text + ENTER)
    await firefox.wait_for(IDLE)


async def press(firefox: Firefox, name: str) -> None:
    """Press a button, and wait for what it asks."""
    await firefox.click(labelled(name))
    await firefox.wait_for(IDLE)


async def set_field(firefox: Firefox, selector: str, value: str) -> None:
    """Give a field of the settings a value, as leaving it would."""
    await firefox.evaluate(
        f"""(() => {{
            const field = document.querySelector({json.dumps(selector)});
            field.value = {json.dumps(value)};
            field.dispatchEvent(new Event("change"));
            return true;
        }})()"""
    )


async def stream_and_stop(firefox: Firefox, script: Script) -> None:
    go_on = threading.Event()
    slowly = [piece for _ in range(3000) for piece in ("b", lambda: time.sleep(0.005))]
    script.say(["Good", " day", lambda: go_on.wait(PATIENCE), "."], ["A", *slowly])

    await firefox.type("Hello" + ENTER)
    await firefox.wait_for("document.querySelector('.answer .said')?.textContent === 'Good day'")
    assert (
        await firefox.evaluate("document.querySelector('.answer').getAttribute('aria-busy')")
        == "true"
    )
    go_on.set()
    await firefox.wait_for(IDLE)
    assert await turns(firefox) == [["Hello", "Good day."]]

    for how in (ESCAPE, "Stop"):
        script.answers = [["A", *slowly]]
        await firefox.type("Go on" + ENTER)
        await firefox.wait_for(
            "[...document.querySelectorAll('.answer .said')].at(-1).textContent.length > 3"
        )
        if how == ESCAPE:
            await firefox.type(ESCAPE)
        else:
            await firefox.click(labelled("Stop"))
        await firefox.wait_for(IDLE)
        question, answer = (await turns(firefox))[-1]
        assert question == "Go on" and 3 < len(answer) < 3001
        assert await firefox.evaluate("document.activeElement.id") == "text"
        await press(firefox, "Undo")
        assert await firefox.evaluate("byId('text').value") == "Go on"
        await firefox.evaluate("setText('')")
    assert await turns(firefox) == [["Hello", "Good day."]]


async def change_turns(firefox: Firefox, script: Script) -> None:
    script.say("One.", "One again.", "Other.")
    await ask(firefox, "First?")
    await press(firefox, "Retry")
    assert (await turns(firefox))[1:] == [["First?", "One again."]]

    await firefox.click(labelled("Edit question 2"))
    await firefox.type("Changed?" + ENTER)  # in place of the question, which is selected
    await firefox.wait_for(IDLE)
    assert (await turns(firefox))[1:] == [["Changed?", "Other."]]


async def change_settings(firefox: Firefox, script: Script) -> None:
    script.say("Warm.")
    await firefox.click(labelled("Settings"))
    await set_field(firefox, "#setting-temperature", "0.7")
    await set_field(firefox, "#system", "Be kind.")
    await firefox.click(labelled("Settings"))
    await firefox.evaluate("byId('text').focus()")
    await ask(firefox, "Warm?")
    assert script.options[-1]["temperature"] == 0.7

    await set_field(firefox, "#setting-max_new_tokens", "1000")
    await firefox.wait_for("byId('note').classList.contains('alert')")
    await set_field(firefox, "#setting-max_new_tokens", "20")
    await firefox.wait_for("byId('note').hidden")


async def compare(firefox: Firefox, script: Script) -> None:
    script.say(["Left", "."], ["Right", "."])
    await firefox.click(labelled("Compare"))
    await firefox.evaluate("byId('text').focus()")
    await ask(firefox, "Both?")
    assert (await turns(firefox))[-1] == ["Both?", "Left.", "Right."]


async def load_again(firefox: Firefox, script: Script) -> None:
    before = await turns(firefox)
    await firefox.reload()
    assert await turns(firefox) == before
    assert await firefox.evaluate("byId('system').value") == "Be kind."
    assert await firefox.evaluate("byId('setting-max_new_tokens').value") == "20"

    go_on = threading.Event()
    script.say(["A", lambda: go_on.wait(PATIENCE)], ["B", lambda: go_on.wait(PATIENCE)], "C.", "D.")
    await firefox.type("Half?" + ENTER)
    await firefox.wait_for(
        "[...document.querySelectorAll('.answer .said')].at(-2).textContent === 'A'"
    )
    await firefox.reload()
    go_on.set()
    assert (await turns(firefox))[-1][:2] == ["Half?", "A"]
    # Firefox keeps the state of controls when a page is loaded again.
    disabled = "[...document.querySelectorAll('header :disabled, footer :disabled')].length"
    assert await firefox.evaluate(disabled) == 0
    assert await firefox.evaluate("document.querySelectorAll('[aria-busy]').length") == 0
    await ask(firefox, "Whole?")
    assert (await turns(firefox))[-1] == ["Whole?", "C.", "D."]


async def visit(profile: Path, address: str, script: Script) -> None:
    async with firefoxes.running(profile) as firefox:
        await firefox.open(address)
        await firefox.wait_for("document.querySelector('#examples button') !== null")
        labels = "JSON.stringify([...document.querySelectorAll('#examples button')].map(nameOf))"
        assert json.loads(await firefox.evaluate(labels)) == EXAMPLES
        assert await firefox.evaluate("document.activeElement.id") == "text"

        for steps in (stream_and_stop, change_turns, change_settings, compare, load_again):
            await steps(firefox, script)

        too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await firefox.evaluate(too_wide) <= 0
        assert firefox.errors == []
        own = (address, "data:", "blob:")
        assert [url for url in firefox.requested if not url.startswith(own)] == []


def test_the_main_flow_in_firefox(address, tmp_path, script):
    profile = tmp_path / "profile"
    profile.mkdir()
    asyncio.run(visit(profile, address, script))
