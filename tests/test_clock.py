"""What `make test` leaves of its times, and what is kept of them."""

import json

import pytest

from scripts import clock


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setattr(clock, "REPO", tmp_path.parent)
    monkeypatch.setattr(clock, "LAST", tmp_path / "clock.tsv")
    monkeypatch.setattr(clock, "KEPT", tmp_path / "clock.json")
    monkeypatch.setattr(clock.sys, "argv", ["clock", "empty"])
    monkeypatch.setattr(
        clock.subprocess, "run", lambda *_, **__: type("Run", (), {"stdout": "a1\n"})
    )
    return tmp_path


def runs(folder):
    return json.loads((folder / "clock.json").read_text())


def test_a_run_is_kept_with_its_commit_and_takes_the_place_of_one_like_it(kept, monkeypatch):
    (kept / "clock.tsv").write_text("lint\t3\nunit\t400\n")
    clock.main()
    (kept / "clock.tsv").write_text("lint\t3\nunit\t390\n")
    clock.main()
    (run,) = runs(kept)
    assert (run["commit"], run["caches"]) == ("a1", "empty")
    assert run["steps"] == {"lint": 3, "unit": 390}
    monkeypatch.setattr(clock.sys, "argv", ["clock", "of a run before"])
    clock.main()
    assert [run["caches"] for run in runs(kept)] == ["empty", "of a run before"]


def test_without_a_run_there_is_nothing_to_keep(kept):
    with pytest.raises(SystemExit, match="No run of `make test`"):
        clock.main()


def test_the_page_on_tests_has_what_it_shows():
    for run in json.loads(clock.KEPT.read_text(encoding="utf-8")):
        assert set(run) == {"commit", "date", "machine", "caches", "steps"}
        assert set(run["steps"]) == {"environment", "lint", "nbval", "book", "unit", "browser"}
