"""The page about mutants and random inputs: its scores, and the list of mutants that compute the same."""

from __future__ import annotations

import json

import pytest
from kills import WORKS

from courseware import paths
from courseware.site import proof

RECORD = {
    "chapters": [
        {
            "chapter": "05",
            "mutants": 173,
            "tried": 60,
            "noticed": 50,
            "too_long": 3,
            "noticed_by_tests": 4,
            "survived": 3,
            "with_tests": False,
        }
    ],
    "survivors": [
        {
            "chapter": "05",
            "module": "minigpt_lib.x",
            "line": i,
            "code": "a | b",
            "was": "a",
            "now": now,
        }
        for i, now in enumerate("bcd")
    ],
}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Let the page read a small record, in which one of three survivors computes the same."""
    same = {"module": "minigpt_lib.x", "code": "a | b", "was": "a", "now": "c", "why": "c is a"}
    for name, content in (("MUTANTS", RECORD), ("EQUIVALENT", [same])):
        monkeypatch.setattr(proof, name, tmp_path / name)
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")


def test_mutants_that_compute_the_same_do_not_count(recorded):
    page = proof.mutants()
    row = next(line for line in page.splitlines() if "05_attention" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["173", "60", "53", "4", "1", "2", "96.6%"]  # 57 of 59
    assert "| all | 173 | 60 | 53 | 4 | 1 | 2 | 96.6% |" in page


def test_what_was_not_tried_is_said(recorded):
    page = proof.mutants()
    assert "For all chapters only the checks were tried" in page
    assert "Not tried yet: 1, 2, 3, 4, 6, 7," in page


def test_every_survivor_is_listed_with_the_reason_if_there_is_one(recorded):
    page = proof.mutants()
    assert "All 3 mutants that survived" in page
    assert page.count("`a \\| b`") == 3
    assert "| `a` → `c` | c is a |" in page
    assert "| `a` → `d` | – |" in page


def test_what_is_judged_to_compute_the_same_is_code_of_the_library():
    for module, code, was, now in proof.equivalent():
        source = (paths.LIBRARY / f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
        assert code in [line.strip() for line in source.splitlines()], (module, code)
        assert was
        assert now
    assert all(proof.equivalent().values()), "each has a reason"


def test_the_records_are_complete():
    record = json.loads(proof.MUTANTS.read_text(encoding="utf-8"))
    for row in record["chapters"]:
        left = [p for p in record["survivors"] if p["chapter"] == row["chapter"]]
        assert len(left) == row["survived"], row["chapter"]
        counts = [row[name] for name in ("noticed", "too_long", "noticed_by_tests", "survived")]
        assert sum(counts) == row["tried"], row["chapter"]

    cases = json.loads(proof.FUZZ.read_text(encoding="utf-8"))["targets"]
    assert sum(target["cases"] for target in cases) >= 1_000_000
    assert not any(target["faults"] for target in cases)
    assert f"{sum(target['cases'] for target in cases):,} cases" in proof.fuzz()


def test_every_work_that_saves_was_killed_and_met_full_disks():
    works = json.loads(proof.KILLS.read_text(encoding="utf-8"))["works"]
    assert [work["work"] for work in works] == list(WORKS)
    killed = sum(work["killed"]["kills"] for work in works)
    assert killed >= 200
    assert all(work["killed"]["ends"] and work["full"]["full disks"] for work in works)

    page = proof.kills()
    assert f"had {killed} kills" in page
    for work in works:
        assert f"| {work['what']} | {work['killed']['kills']} |" in page
