"""Formulas as MathML: what TeX means is what stands in the page, and what can't be converted stops the build."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from docutils import nodes
from sphinx.errors import ExtensionError

from courseware.site import formulas
from courseware.site.formulas import to_mathml

THIN = "0.1667em"


@pytest.mark.parametrize(
    "tex, expected",
    [
        ("x^2", "<msup><mi>x</mi><mn>2</mn></msup>"),
        (r"\tfrac12", '<mfrac displaystyle="false" scriptlevel="0"><mn>1</mn><mn>2</mn></mfrac>'),
        (r"\frac{8}{3}", "<mfrac><mn>8</mn><mn>3</mn></mfrac>"),
        ("x^12", "<msup><mi>x</mi><mn>1</mn></msup><mn>2</mn>"),
        ("a < b", "<mi>a</mi><mo>&lt;</mo><mi>b</mi>"),
        (r"\Phi", '<mi mathvariant="normal">Φ</mi>'),
        (r"\mathbb{E}", "<mi>𝔼</mi>"),
        (
            r"\underbrace{x}_{\text{a word}}",
            "<munder><munder><mi>x</mi><mo>⏟</mo></munder><mtext>a word</mtext></munder>",
        ),
        (r"\sqrt{\sigma}", "<msqrt><mi>σ</mi></msqrt>"),
    ],
)
def test_a_formula_becomes_what_tex_means(tex, expected):
    assert to_mathml(tex) == f"<math>{expected}</math>"
    assert to_mathml(tex, display=True) == f'<math display="block">{expected}</math>'


@pytest.mark.parametrize(
    "tex, before, after",
    [
        (r"\beta \ln Z", THIN, THIN),
        (r"\ln(x)", "0", "0"),
        (r"- \ln Z", "0", THIN),
        (r"\pi(y) \ln Z", THIN, THIN),
        (r"\sum_y \max_j x_j", THIN, THIN),
        (r"\sin\left(x\right)", "0", "0"),
    ],
)
def test_a_function_keeps_clear_of_its_neighbours_but_not_of_a_bracket(tex, before, after):
    spaces = re.findall(r'lspace="([^"]+)" rspace="([^"]+)">(?:ln|max|sin)<', to_mathml(tex))
    assert spaces == [(before, after)]


def test_nothing_is_lost_and_no_word_is_spelled_out():
    text = re.sub("<[^>]+>", "", to_mathml(r"\mathrm{softmax}(x) = \ln \frac{\text{found}}{n_1}"))
    assert text == "softmax(x)=lnfoundn1"
    assert "<mi>softmax</mi>" in to_mathml(r"\mathrm{softmax}(x)")


@pytest.mark.parametrize(
    "tex, reason",
    [
        (r"\unheard x", "Unknown LaTeX command"),
        (r"\frac{1}{2", "2 { but 1 }"),
        (r"\left( x", r"1 \left but 0 \right"),
        ("a & b", ""),
        (r"\frac{1}", ""),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_formula(tex, reason):
    with pytest.raises(ValueError) as refusal:
        to_mathml(tex)
    assert f"the formula {tex!r} can't be converted" in str(refusal.value)
    assert reason in str(refusal.value)


def test_the_build_stops_and_names_the_page_and_the_formula():
    writer = SimpleNamespace(
        body=[],
        starttag=lambda *_, **__: "<span>",
        builder=SimpleNamespace(current_docname="notebooks/05_attention"),
    )
    with pytest.raises(ExtensionError, match=r"notebooks/05_attention: the formula '.+unheard"):
        formulas.visit_math(writer, nodes.math(text=r"\unheard"))
    with pytest.raises(nodes.SkipNode):
        formulas.visit_math_block(writer, nodes.math_block(text="x"))
    assert '<math display="block"><mi>x</mi></math></div>' in writer.body[-1]
