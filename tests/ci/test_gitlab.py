"""The note on a merge request: written, kept up to date, never stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ci.forge import BOT, TABLE, TOKEN, Forge, script

gitlab, sticky = script("gitlab"), script("sticky")
MARKER = sticky.MARKER


@pytest.fixture(autouse=True)
def _variables(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_API_V4_URL", forge.url)
    monkeypatch.setenv("CI_PROJECT_ID", "3")
    monkeypatch.setenv("CI_MERGE_REQUEST_IID", "8")
    monkeypatch.setenv("FOOTPRINT_TOKEN", TOKEN)


def run(monkeypatch: pytest.MonkeyPatch, file: Path) -> int:
    monkeypatch.setattr("sys.argv", ["gitlab.py", str(file)])
    return int(gitlab.main())


def test_the_note_is_written_then_kept_up_to_date(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "comment.md"
    file.write_text(f"{MARKER}\n{TABLE}")
    forge.add(8, "someone", f"{MARKER}\nnot ours")
    assert run(monkeypatch, file) == 0
    assert forge.bodies(8) == [f"{MARKER}\nnot ours", f"{MARKER}\n{TABLE}"]
    file.write_text(f"{MARKER}\n@all /merge\n/merge\n")
    assert run(monkeypatch, file) == 0
    assert forge.bodies(8)[1:] == [f"{MARKER}\n@\u200ball /merge\n\u200b/merge\n"]
    assert {token for *_, token in forge.said} == {TOKEN}
    file.unlink()
    assert run(monkeypatch, file) == 0
    (_, note) = forge.bodies(8)
    assert "Comparison skipped because the job that measured it failed\n" in note


def test_trouble_is_one_line(
    forge: Forge,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    forge.failures = [("notes", 403, {})]
    assert run(monkeypatch, tmp_path / "none") == 1
    assert "status 403: the token may not do this" in capsys.readouterr().err
    forge.add(8, BOT, f"{MARKER}\nold")
    forge.failures = [("notes/", 500, {})]
    assert run(monkeypatch, tmp_path / "none") == 1
    assert [method for method, *_ in forge.said].count("PUT") == 1
    monkeypatch.delenv("CI_MERGE_REQUEST_IID")
    assert run(monkeypatch, tmp_path / "none") == 1
    assert "CI_MERGE_REQUEST_IID is not set" in capsys.readouterr().err
