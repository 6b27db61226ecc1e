"""Figures and widgets as they appear on a page: well-formed, described, and reproducible to the byte."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")

import matplotlib.pyplot as plt

from courseware.widgets import attention_pictures, feedforward_pictures, figures
from courseware.widgets.bigram_sampler import bigram_sampler
from courseware.widgets.drawings import Drawing
from courseware.widgets.show import show, twin_html
from minigpt_lib.char_tokenizer import CharTokenizer


@pytest.fixture(autouse=True)
def house_style():
    with matplotlib.rc_context():
        figures.style()
        yield
    plt.close("all")


def plot(size=(7.0, 3.6), title="a < b & c"):
    """Return a figure with everything that the chapters draw: lines, points, a band, mathematics."""
    figure, axes = plt.subplots(figsize=size)

    axes.plot([0, 1, 2], [3, 2, 1.5], color=figures.COLOURS["train"], label="train")
    axes.axhline(2, color=figures.COLOURS["reference"], linestyle="--")
    axes.scatter([0, 1], [2, 2])
    axes.fill_between([0, 1], [1, 1], [2, 2], color=figures.COLOURS["band"])
    axes.set(title=title, xlabel="steps", ylabel="loss $L$ (nats per token)")
    axes.legend()

    return figure


def ids(markup: str) -> list[str]:
    """Return the ids that a figure defines."""
    return re.findall(r' id="([^"]+)"', markup)


def test_a_figure_is_well_formed_and_described():
    markup = figures.to_html(plot(), alt='loss "falls" <fast>', caption="A & B")

    root = ElementTree.fromstring(markup)
    svg = root.find("svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == 'loss "falls" <fast>'
    assert root.find("figcaption").text == "A & B"
    assert "a < b & c" in "".join(svg.itertext())


def test_a_figure_takes_the_colours_of_the_page():
    markup = figures.to_html(plot(), alt="loss")

    assert "#000000" not in markup
    assert "currentColor" in markup
    assert figures.COLOURS["train"].lower() in markup.lower()
    assert "<style" not in markup, "a style element in a figure would apply to the whole page"
    assert "font-family: " not in markup
    assert "#ffffff" not in markup


def test_text_is_no_smaller_than_the_text_of_the_page():
    markup = figures.to_html(plot(), alt="loss")

    width = float(re.search(r'viewBox="0 0 (\S+)', markup)[1])
    on_page = [float(size) * 700 / width for size in re.findall(r"font-size: ([\d.]+)px", markup)]
    assert min(on_page) >= 16


def test_the_same_figure_gives_the_same_bytes():
    assert figures.to_html(plot(), alt="loss") == figures.to_html(plot(), alt="loss")


def test_the_ids_of_two_figures_differ():
    one = set(ids(figures.to_html(plot(title="one"), alt="loss")))
    two = set(ids(figures.to_html(plot(title="two"), alt="loss")))

    assert one
    assert two
    assert not one & two


def test_every_id_of_a_figure_is_used():
    markup = figures.to_html(plot(), alt="loss")

    by_url = set(re.findall(r"url\(#([^)]+)\)", markup))
    by_link = set(re.findall(r'href="#([^"]+)"', markup))
    assert sorted(ids(markup)) == sorted(by_url | by_link)


def test_an_image_is_embedded_in_the_figure():
    figure, axes = plt.subplots()
    axes.imshow(np.eye(3), vmin=0, vmax=1)

    assert 'href="data:image/png;base64,' in figures.to_html(figure, alt="a diagonal")


@pytest.mark.parametrize(
    ("arguments", "size", "part"),
    [({"alt": " "}, (7, 3), "description"), ({"alt": "x"}, (9, 3), "at most 7 inches")],
)
def test_a_figure_that_readers_could_not_use_is_refused(arguments, size, part):
    with pytest.raises(ValueError, match=part):
        figures.to_html(plot(size), **arguments)


def displayed(monkeypatch, action):
    """Return the MIME bundle that an action displays."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: bundles.append(data))

    action()

    return bundles[0]


def test_show_displays_the_figure_and_closes_it(monkeypatch):
    figure = plot()

    bundle = displayed(monkeypatch, lambda: figures.show(figure, alt="loss falls"))

    assert bundle["text/plain"] == "Figure: loss falls"
    assert bundle["text/html"].startswith("<figure")
    assert not plt.fignum_exists(figure.number)


def test_a_link_in_a_drawing_has_no_href_that_jupyterlab_would_rewrite():
    drawing = Drawing(100, 50)

    drawing.box(0, 0, 100, 50, "norm", link="07_norms.ipynb")

    # JupyterLab assigns to the href of every <a> that has one; that of a drawing is read-only, and the output an error.
    assert '<a xlink:href="07_norms.ipynb">' in drawing.to_html(alt="A box.")


def test_a_widget_is_displayed_with_its_twin(monkeypatch):
    widget = ipywidgets.IntSlider(description="Start")

    bundle = displayed(
        monkeypatch,
        lambda: show(widget, twin="batch-slicer", data={"text": "ab"}, alt="A slider."),
    )

    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == widget.model_id
    assert bundle["text/plain"] == "A slider."
    assert 'data-twin="batch-slicer"' in bundle["text/html"]


def test_a_widget_with_lists_brings_the_arrows_for_a_dark_theme(monkeypatch):
    choice = ipywidgets.Dropdown(options=["a", "b"])
    box = ipywidgets.VBox([choice])

    displayed(monkeypatch, lambda: show(box, twin="batch-slicer", data={}, alt="A list."))

    first, arrows = box.children
    assert first is choice
    assert "--jp-widgets-dropdown-arrow" in arrows.value
    assert arrows.layout.display == "none"


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)", "<!--", "a & b", "\u2028", "é😀", '"\\']
)
def test_no_text_breaks_out_of_the_data(text):
    markup = twin_html("char-ids", {"text": text}, alt="<b>")

    inside = re.fullmatch(
        r'<div class="twin" data-twin="char-ids"><script type="application/json">([^<>&]*)'
        r'</script><p class="twin-alt">&lt;b&gt;</p></div>',
        markup,
    )
    assert json.loads(inside[1]) == {"text": text}


@pytest.mark.parametrize(
    ("twin", "data", "alt", "part"),
    [
        ("../x", {}, "a", "twin's name"),
        ("x", {}, "", "description"),
        ("x", {"a": {1}}, "a", "expected data"),
        ("x", float("nan"), "a", "expected data"),
    ],
)
def test_a_twin_with_invalid_arguments_is_refused(twin, data, alt, part):
    with pytest.raises(ValueError, match=part):
        twin_html(twin, data, alt)


def lines_of_text(svg: ElementTree.Element) -> list[tuple[float, float, float, str]]:
    """Return (left, right, baseline, words) of each text; a digit or a letter is about 0.55 of its size wide."""
    found = []
    for text in svg.iter("text"):
        width = 0.55 * float(text.get("font-size")) * len(text.text)
        left = (
            float(text.get("x"))
            - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")] * width
        )
        found.append((left, left + width, float(text.get("y")), text.text))
    return found


def test_the_scores_of_a_query_keep_clear_of_its_keys(monkeypatch):
    words, numbers = ["poison", "bitter"], [-2.47, -1.05]
    values = [[-1.53, 0.91], [-1.72, 1.84]]
    shown = displayed(
        monkeypatch, lambda: attention_pictures.one_query(words, numbers, [0.2, 0.8], values)
    )
    svg = ElementTree.fromstring(shown["text/html"]).find(".//svg")

    boxes = [(float(r.get("x")), float(r.get("width"))) for r in svg.iter("rect")]
    for left, right, _, words in lines_of_text(svg):
        if words in ("-2.47", "-1.05"):
            assert all(x + width + 6 < left or right + 4 < x for x, width in boxes if x > 110), (
                words
            )


def test_the_words_beside_a_head_keep_clear_of_its_lines(monkeypatch):
    shown = displayed(monkeypatch, attention_pictures.head)
    svg = ElementTree.fromstring(shown["text/html"]).find(".//svg")

    down = [
        float(x) for x in re.findall(r"M([\d.]+) 120 L\1 290", ElementTree.tostring(svg).decode())
    ]
    right = max(end for _, end, _, words in lines_of_text(svg) if words == "mask, softmax:")
    assert down
    assert min(down) > right + 12


def test_the_words_of_a_drawing_are_in_the_colour_of_the_page(monkeypatch):
    shown = displayed(monkeypatch, feedforward_pictures.widen_and_narrow)
    svg = ElementTree.fromstring(shown["text/html"]).find(".//svg")

    # The blue of a query has too little contrast for text on a dark page.
    assert not [text.text for text in svg.iter("text") if "fill" in text.get("style", "")]


def test_the_links_of_a_drawing_can_be_reached_and_have_names():
    d = Drawing(200, 100)
    d.box(0, 0, 90, 30, "ids")
    picture = ElementTree.fromstring(d.to_html(alt="A model.")).find("svg")
    assert picture.get("role") == "img"

    d.box(0, 50, 90, 30, "attention", link="05_attention.ipynb")
    html = d.to_html(alt="A model.").replace(
        "xlink:href", "href"
    )  # HTML knows the prefix, XML does not
    figure = ElementTree.fromstring(html).find("svg")
    assert figure.get("role") == "group", "a screen reader does not enter an image"
    assert figure.get("aria-label") == "A model."
    assert ["".join(link.itertext()) for link in figure.iter("a")] == ["attention"]

    with pytest.raises(ValueError, match="expected words in the box that links to 06_positions"):
        d.box(0, 50, 90, 30, link="06_positions.ipynb")


def test_the_controls_of_the_sampler_show_all_their_words():
    tokenizer = CharTokenizer.from_text("banana")
    box = bigram_sampler(torch.zeros(3, 3), tokenizer, start="a")
    choice, heat, _, buttons, _ = box.children

    assert choice.style.description_width == heat.style.description_width == "7em"
    assert {button.layout.width for button in buttons.children} == {"auto"}
