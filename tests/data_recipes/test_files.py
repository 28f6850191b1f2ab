import json

import pytest

from data_recipes.errors import UserError, nearest
from data_recipes.files import JsonlLog, fingerprint, folder_written_atomically, read_jsonl, write_atomically


def test_a_log_drops_only_a_torn_last_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3, "b": "to')
    log = JsonlLog(path)
    assert log.rows == [{"a": 1}, {"a": 2}]
    log.append({"a": 4})
    log.close()
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 4]


def test_separators_a_model_may_write_do_not_tear_a_line(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl")
    log.append({"completion": "one\u2028two\u0085three\x0b"})
    log.close()
    assert JsonlLog(tmp_path / "log.jsonl").rows == log.rows
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}\n')
    with pytest.raises(UserError, match="latin, line 1"):
        read_jsonl(tmp_path / "latin")
    (tmp_path / "empty").write_bytes(b"")
    assert read_jsonl(tmp_path / "empty") == []


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(UserError, match="rows.jsonl, line 2: not a JSON object"):
        read_jsonl(path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), folder_written_atomically(target) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert not target.exists()
    with folder_written_atomically(target) as temporary:
        (temporary / "whole").write_text("x")
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_writing_replaces_in_one_step_and_leaves_nothing_behind(tmp_path):
    write_atomically(tmp_path / "a" / "f.txt", "one")
    write_atomically(tmp_path / "a" / "f.txt", b"two")
    assert (tmp_path / "a" / "f.txt").read_text() == "two"
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_fingerprints_ignore_key_order_and_see_values():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def test_nearest_suggests_one_word_or_lists_a_few():
    assert nearest("learning_rat", ["learning_rate", "seed"]) == " (did you mean 'learning_rate'?)"
    assert nearest("zzz", ["a", "b"]) == " (known: a, b)"
