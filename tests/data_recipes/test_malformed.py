"""Malformed recipes and sources: one sentence that names file, line and mend, and nothing half-written."""

import csv
import gzip
import io
import json
import pickle
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_recipes.chunks import read_part
from data_recipes.errors import UserError
from data_recipes.mixing import draws_of
from data_recipes.mixture import build_mixture
from data_recipes.reading import task_rows
from data_recipes.recipe import Mixing, load_recipe
from tests.conftest import Words

RECIPE = """\
description: a task with a good source
tasks:
  t:
    kind: domain
    source: {type: files, path: rows.jsonl}
    prompt: "{{ q }}"
    target: "{{ answer }}"
    verifiers: [number]
    train_rows: 2
    heldout_rows: 1
cleaning: {protect: heldout}
"""
ROWS = [{"q": f"What is {n} plus one?", "answer": str(n + 1), "parts": ["one", "two"]} for n in range(6)]
TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]
ROW = {"id": "r1", "task": "t", "kind": "domain", "messages": TURNS, "answer": "so", "verifiers": ["number"]}
MEND = re.compile(
    r"did you mean '|\(known: |should (be|have|match)|; (\w+ )?(add|change|check|choose|convert|drop|fetch|flatten|give"
    r"|indent|lower|mend|point|put|quote|raise|remove|rename|save|set|simplify|sort|take|type|widen"
    r"|write|build|leave|yield)\b"
)


def lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(*records) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue()


def changed(*pairs: tuple[str, str]) -> str:
    recipe = RECIPE
    for old, new in pairs:
        assert old in recipe
        recipe = recipe.replace(old, new, 1)
    return recipe


def attempt(folder, recipe: str | bytes, files: dict[str, bytes] | None = None, **kwargs) -> dict:
    """Write the recipe and the files, load and build."""
    for name, content in {"rows.jsonl": lines(*ROWS), **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "recipe.yaml").write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
    loaded, _ = load_recipe("recipe.yaml", beside=folder)
    return build_mixture(loaded, folder / "mixture", seed=0, tokenise=Words(), **kwargs)


def refused(folder, message: str, recipe: str | bytes, files: dict[str, bytes] | None = None, **kwargs) -> str:
    """Assert that the attempt ends in one sentence with file, line and mend, and leaves nothing half-written."""
    with pytest.raises(UserError) as caught:
        attempt(folder, recipe, files, **kwargs)
    said = str(caught.value)
    assert re.search(message, said), said
    assert "\n" not in said and len(said) < 800, said
    assert any(name in said for name in ("recipe.yaml", *(files or {}))), said
    assert re.search(r"\bline \d+", said), said
    assert MEND.search(said), said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said  # noqa: S301 - workers hand their errors over so
    nothing_half_written(folder)
    return said


def nothing_half_written(folder) -> None:
    assert not (folder / "mixture").exists() and not (folder / ".mixture.tmp").exists()
    assert not list(folder.rglob("*.tmp"))
    for part in folder.glob(".mixture.parts/*/*"):
        assert read_part(part).num_rows >= 0


def test_the_recipe_that_the_cases_spoil_is_good(tmp_path):
    assert attempt(tmp_path, RECIPE)["tasks"]["t"]["train_rows"] == 2


BROKEN_YAML = {
    "empty": ("", "line 1: .*the file is empty; write"),
    "only a comment": ("# tasks\n", "line 1: .*the file is empty"),
    "a list": ("- tasks\n", r"line 1: expected keys and values at the top level, not \['tasks'\]"),
    "tabs": ("tasks:\n\tt: {}\n", "line 2: not valid YAML: .*indent with spaces"),
    "open quote": ("description: 'mix\ntasks: {}\n", "not valid YAML: .*quoted scalar that begins on line 1"),
    "open bracket": ("tasks: {t: {kind: domain\n", "not valid YAML: .*mapping that begins on line 1"),
    "key twice": ("tasks: {}\ncleaning: {}\ntasks: {}\n", "line 3: .*'tasks' is given twice"),
    "bad indent": ("tasks:\n  t:\n    kind: domain\n   source: {}\n", "line 4: not valid YAML"),
    "unknown alias": ("tasks: *others\n", "line 1: not valid YAML: .*undefined alias"),
    "a Python tag": ("description: !!python/name:os.system\n", "line 1: .*could not determine a constructor"),
    "a map tag on text": ("tasks: !!map none\n", "line 1: not valid YAML: expected a mapping"),
    "a list as a key": ("tasks:\n  ? [a, b]\n  : {}\n", "line 2: not valid YAML: .*unhashable"),
    "an impossible date": ("description: |\n  x\nx: 2024-13-45\n", "line 3: .*'2024-13-45' cannot be read"),
    "a NUL": ("tasks: {}\nx: \0\n", "line 2: .*is not text; remove it"),
    "binary": (b"tasks:\n\x89PNG\xff\xfe", "line 2: not a YAML text file; save it as UTF-8"),
    "Latin-1": ("tasks: {}\ndescription: Übung\n".encode("latin-1"), "line 2: not a YAML text file"),
    "Jinja without quotes": ("tasks:\n  t:\n    prompt: {{ q }}\n", "line 3: .*put a {{ template }} in quotes"),
    "nested too deeply": ("tasks: " + "[" * 500, "line 1: not valid YAML: nested too deeply; flatten"),
}


@pytest.mark.parametrize("case", BROKEN_YAML)
def test_a_recipe_that_is_no_yaml_is_refused_with_its_line(tmp_path, case):
    text, message = BROKEN_YAML[case]
    refused(tmp_path, f"recipe.yaml.*{message}", text)


SPOILED = {
    "unknown top key": (("cleaning:", "cleanin:"), "line 11: unknown key 'cleanin' .did you mean 'cleaning'"),
    "unknown task key": (("kind:", "knid:"), "line 4: unknown key 'tasks.t.knid' .did you mean 'kind'"),
    "unknown source key": (("path:", "pth:"), "line 5: unknown key 'pth' .did you mean 'path'"),
    "unknown source key beside": ((".jsonl}", ".jsonl, pats: a}"), "line 5: unknown key 'pats' .did you mean 'path'"),
    "unknown quality key": (("protect: heldout", "quality: {min_target: 1}"), "line 11: unknown key .*quality.min_tar"),
    "unlike any key": (("protect:", "xyzzy:"), r"line 11: unknown key 'cleaning.xyzzy' \(known: "),
    "kind missing": (("    kind: domain\n", ""), "line 3: the key 'tasks.t.kind' is missing; add it"),
    "source missing": (("    source: {type: files, path: rows.jsonl}\n", ""), "line 3: the key 'tasks.t.source' is"),
    "type missing": (("type: files, ", ""), "line 5: the key 'type' is missing; add it"),
    "kind unknown": (("kind: domain", "kind: domian"), "line 4: tasks.t.kind: .*'domain', not 'domian'"),
    "number as text": (("train_rows: 2", "train_rows: two"), "line 9: tasks.t.train_rows: .*valid integer.*not 'two'"),
    "negative rows": (("train_rows: 2", "train_rows: -2"), "line 9: .*greater than or equal to 0, not -2"),
    "rows beyond counting": (("train_rows: 2", "train_rows: 1" + 30 * "0"), "line 9: .*less than or equal to"),
    "source as text": (("{type: files, path: rows.jsonl}", "rows.jsonl"), "line 5: tasks.t.source: .*not 'rows.jsonl'"),
    "task as text": (("  t:\n", "  s: gsm8k\n  t:\n"), "line 3: tasks.s: .*not 'gsm8k'"),
    "task as number": (("  t:\n", "  7:\n"), "line 3: tasks.7: the key 7 should be text; put it in quotes"),
    "task without a name": (("  t:\n", '  "":\n'), "line 2: '' cannot be a task's name; give"),
    "task name of two lines": (("  t:\n", '  "a\\nb":\n'), "cannot be a task's name"),
    "tasks as list": (("tasks:\n  t:\n", "tasks:\n  -\n"), "line 2: tasks: .*should be a valid dictionary, not a list"),
    "verifiers as text": (("[number]", "number"), "line 8: tasks.t.verifiers: .*valid list, not 'number'"),
    "prompt as mapping": (('"{{ q }}"', "{q: 1}"), "line 6: tasks.t.prompt: .*valid string or a valid list, not keys"),
    "prompts with a number": (('"{{ q }}"', "['{{ q }}', 3]"), "line 6: tasks.t.prompt.1: .*valid string, not 3"),
    "no prompts": (('"{{ q }}"', "[]"), "line 6: tasks.t.prompt: List should have at least 1 item"),
    "language by name": (("protect: heldout", "languages: [english]"), "line 11: .*'english' is no .*; give two"),
    "threshold above 1": (("protect: heldout", "near_duplicates: {threshold: 1.5}"), "line 11: .*less than 1, not 1.5"),
    "tokens at cross": (("protect: heldout", "min_tokens: 9, max_tokens: 3"), "line 11: .*max_tokens is below"),
    "not a number": (("protect: heldout", "quality: {max_symbols: .nan}"), "line 11: .*finite number"),
    "open template": (("{{ q }}", "{{ q }"), "line 6: tasks.t.prompt: not a Jinja template: .*; mend '{{ q }'"),
    "open block": (('"{{ q }}"', "|\n      Say\n      {% if q %}{{ q }}"), "line 6: .*Jinja template: .*in its line 2"),
    "unknown tag": (("{{ q }}", "{% fro x in q %}"), "line 6: .*unknown tag 'fro'"),
    "broken only": ("only: 'q ==='", "line 8: tasks.t.only: not a Jinja expression"),
    "broken options": ("choices: {options: '[a, ', answer: a}", "line 8: .*options: not a Jinja expression"),
    "choices without answer": ("choices: {options: '[a, b]'}", "line 8: the key 'tasks.t.choices.answer' is missing"),
    "undefined column": (("{{ q }}", "{{ Q }}"), "line 6: record rows.jsonl:1: .*'Q' is undefined .*; mend it"),
    "nearest column": (("{{ answer }}", "{{ answr }}"), "line 7: record rows.jsonl:1: .*did you mean 'answer'"),
    "out of the sandbox": (("{{ q }}", "{{ q.__class__.__mro__ }}"), "line 6: .*access to attribute '__class__'"),
    "a column changed": (("{{ q }}", "{{ parts.append(q) }}"), "line 6: .*record rows.jsonl:1: .*unsafe"),
    "endless macro": (("{{ q }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), "line 6: .*recursion"),
    "division by zero": (("{{ q }}", "{{ 1 / 0 }}"), "line 6: record rows.jsonl:1: .*division by zero"),
    "only of no column": ("only: level > 3", "line 8: .*'level' is undefined"),
    "only lets nothing in": ("only: q == ''", "line 5: rows.jsonl gives no row that 'only'"),
    "group of no column": ("group: '{{ g }}'", "line 8: record .*'g' is undefined"),
    "options of no column": ("choices: {options: '[q, nope]', answer: '0'}", "line 8: record .*'nope' is undefined"),
    "one option": ("choices: {options: '[q]', answer: '0'}", "line 8: record rows.jsonl:1: expected 2 to 26"),
    "answer out of range": ("choices: {options: parts, answer: '2'}", "line 8: record rows.jsonl:1: 2 is neither"),
    "no tasks": (("tasks:\n", "tasks: {}\nflaws:\n"), "unknown key 'flaws'"),
    "too few rows": (("train_rows: 2", "train_rows: 20"), "line 5: .*5 training and 1 held-out .* 20 and 1 are"),
    "too few held out": (("heldout_rows: 1", "heldout_rows: 9"), "line 5: .*0 training and 6 held-out .*lower them"),
    "all cleaned away": (
        ("t: heldout", "t: heldout, max_tokens: 3"),
        r"line 5: .*no training row \(5 too long\); widen",
    ),
    "held out of nothing": ("heldout_source: {type: files, path: none.jsonl}", "line 8: .*no held-out question; mend"),
    "least above most": ("min_draws: 5\n    max_draws: 4", "line 8: .*more than the 4"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_recipe_is_refused_with_the_line_of_the_key(tmp_path, case):
    change, message = SPOILED[case]
    if isinstance(change, str):  # another key of the task
        change = ("    verifiers:", f"    {change}\n    verifiers:")
    refused(tmp_path, f"recipe.yaml.*{message}", changed(change), {"none.jsonl": b""})


MIXINGS = {
    "epoch of a union": ("{epoch_rows: 4}", "union reads every row once"),
    "two lengths": ("{scheme: proportional, epoch_rows: 4, epoch_tokens: 9}", "both epoch_rows and epoch_tokens"),
    "unknown scheme": ("{scheme: equal}", "mixing.scheme: .*not 'equal'"),
    "shares without shares": ("{scheme: shares, epoch_rows: 4}", "needs shares or a schedule"),
    "shares without scheme": ("{shares: {t: 1}}", "'shares' needs shares"),
    "infinite share": ("{scheme: shares, shares: {t: .inf, u: 1}, epoch_rows: 4}", "mixing.shares.t: .*finite number"),
    "negative share": ("{scheme: shares, shares: {t: -1, u: 1}, epoch_rows: 4}", "shares cannot be negative; give 0"),
    "zero shares": ("{scheme: shares, shares: {t: 0, u: 0}, epoch_rows: 4}", "all shares are zero; give"),
    "share left out": ("{scheme: shares, shares: {t: 1}, epoch_rows: 4}", "leave out the task 'u'; give it one"),
    "unknown share": ("{scheme: shares, shares: {tt: 1, u: 1}, epoch_rows: 4}", "unknown task .*(known|did you mean)"),
    "shares of no epoch": ("{scheme: shares, shares: {t: 1, u: 1}}", "how long an epoch is; add epoch_rows"),
    "temperature of no epoch": ("{scheme: temperature}", "how long an epoch is; add epoch_rows, such as epoch_rows: 4"),
    "temperature zero": ("{scheme: temperature, temperature: 0, epoch_rows: 4}", "temperature: .*greater than 0"),
    "unimax in other units": ("{scheme: unimax, epoch_tokens: 40}", "unimax in rows needs epoch_rows; give it"),
    "falling schedule": ("{scheme: shares, schedule: [{at: 1, shares: {}}, {at: 0, shares: {}}]}", "rise; sort them"),
    "schedule of an unknown task": (
        "{scheme: shares, schedule: [{at: 0, shares: {t: 1, u: 1}}, {at: 1, shares: {t: 1, v: 1}}]}",
        "mixing.schedule.1.shares.v, line 14: unknown task"
    ),
    "schedule and shares": ("{scheme: shares, shares: {t: 1}, schedule: [{at: 0, shares: {t: 1}}]}", "both shares and"),
    "least above the epoch": ("{scheme: proportional, epoch_rows: 2}", "line 14: the least rows .* add up to 3"),
    "most below the epoch": ("{scheme: proportional, epoch_rows: 99, max_epochs: 2}", "allow 8 draws .*; change"),
}  # fmt: skip
TWO_TASKS = changed(("cleaning:", """\
  u: {kind: domain, train_rows: 2, min_draws: 3, prompt: "{{ q }}",
      source: {type: files, path: rows.jsonl}}
cleaning:"""))  # fmt: skip


@pytest.mark.parametrize("case", MIXINGS)
def test_a_contradictory_mixing_is_refused_before_anything_is_built(tmp_path, case):
    mixing, message = MIXINGS[case]
    assert "line 14" in refused(tmp_path, message, TWO_TASKS + f"mixing: {mixing}\n")
    assert not list(tmp_path.glob(".mixture*"))


def test_limits_that_only_the_rows_can_break_are_said_with_the_numbers(tmp_path):
    manifest = attempt(tmp_path, changed(("    train_rows: 2\n", "")))
    for mixing, message in (
        (Mixing(scheme="proportional", epoch_rows=100, max_epochs=2), "allow 10 draws an epoch, fewer than the 100"),
        (Mixing(scheme="temperature"), "epoch_rows: 5 repeats no row, epoch_rows: 5 reads every row"),
        (Mixing(scheme="shares", shares={"s": 1}, epoch_rows=5), "unknown task 's'"),
    ):
        with pytest.raises(UserError, match=f"the recipe's mixing: .*{message}.*; change the shares"):
            draws_of(manifest, mixing)


INCLUDES = {
    "unknown": ("include: [mathh]", {}, "recipe.yaml, line 1: include: recipe 'mathh': .*did you mean 'math'.*; mend"),
    "itself": ("include: [recipe.yaml]", {}, "line 1: include: 'recipe.yaml' is this recipe or includes it in turn"),
    "itself roundabout": ("include: [a/../recipe.yaml]", {"a/x": b""}, "line 1: .*includes it in turn; leave"),
    "a circle": ("include: [b.yaml]", {"b.yaml": b"include: [recipe.yaml]"}, "b.yaml, line 1: .*'recipe.yaml' is this"),
    "broken": ("include: [b.yaml]", {"b.yaml": b"\ntasks: {"}, "b.yaml, line 2: not valid YAML"),
    "of no tasks": ("include: [b.yaml]", {"b.yaml": b"description: x"}, "b.yaml, line 1: the recipe has no tasks"),
    "another task t": (
        "include: [b.yaml, c.yaml]",
        {"b.yaml": RECIPE.encode(), "c.yaml": changed(("domain", "critique")).encode()},
        "line 1: include: 'c.yaml' has another task called 't'; rename",
    ),
    "nothing": ("tasks: {}", {}, "line 1: the recipe has no tasks; give"),
}


@pytest.mark.parametrize("case", INCLUDES)
def test_an_include_that_leads_nowhere_is_refused(tmp_path, case):
    recipe, files, message = INCLUDES[case]
    refused(tmp_path, message, recipe, files)


WRONG_SOURCES = {
    "unknown type": ("{type: file, path: a}", "unknown source type 'file' .did you mean 'files'"),
    "type a list": ("{type: [files], path: a}", "unknown source type .* .did you mean 'files'"),
    "no file": ("{type: files, path: nowhere.jsonl}", "nowhere.jsonl: no such file; mend"),
    "no path": ("{type: files, path: ''}", r"a folder, not a file; give .* such as ./\*.jsonl"),
    "no match": ("{type: files, path: 'folder/*.csv'}", r"folder/\*.csv: no file matches; mend"),
    "unknown suffix": ("{type: files, path: folder/x.txt}", "x.txt: not one of .jsonl, .json, .csv, .parquet"),
    "a path with a NUL": (r'{type: files, path: "a\0b"}', "not the path of a file .*; mend the path"),
    "a path without end": (f"{{type: files, path: {'x' * 5000}.jsonl}}", "cannot be read .*name too long.*; check"),
    "no WHETSTONE_DATA": ("{type: files, path: '{data}/x.jsonl'}", "WHETSTONE_DATA is not set; point it"),
    "no run": ("{type: files, path: '{run}/x.jsonl'}", "reads a run's own files; build it with"),
    "offline a path": ("{type: files, path: a, offline: b.jsonl}", "offline: not a source; write one"),
    "half unknown": ("{type: files, path: a, half: left}", "half: .*'train' or 'heldout', not 'left'"),
    "GSM8K's test": ("{type: files, path: gsm8k/test.jsonl}", "gsm8k is an evaluation set, .*; take its training"),
    "all of RealCritic": ("{type: files, path: RealCritic/a.jsonl}", "realcritic is an .*; add 'half: train'"),
    "RealCritic held out": ("{type: files, path: realcritic/a.jsonl, half: heldout}", "nothing trains on; add 'half"),
    "GSM8K's test by hub": ("{type: hub, dataset: openai/gsm8k, split: test}", "gsm8k is an evaluation set"),
    "part of a split": ("{type: hub, dataset: openai/gsm8k, split: 'test[:90%]'}", "split: 'test.* is not one split"),
    "hub unreachable": ("{type: hub, dataset: nobody/nothing}", "'nobody/nothing' cannot be had .*; check"),
    "hub folder of nothing": ("{type: hub, dataset: folder, split: test}", "'folder' cannot be had .*; check"),
    "no such package": ("{type: package, package: no-such-thing, path: a}", "not installed; type: pip install no-such"),
    "no file in a package": ("{type: package, package: pyyaml, path: yaml/no.json}", "holds no file .*; mend"),
    "gym of nothing": ("{type: reasoning_gym, dataset: chain_sun}", "no dataset 'chain_sun' .did you mean 'chain_sum'"),
    "gym unlike anything": ("{type: reasoning_gym, dataset: xyzzy}", "no dataset 'xyzzy'; take one of its gallery"),
    "gym config key": ("{type: reasoning_gym, dataset: chain_sum, config: {terms: 2}}", "refuses config .*; mend"),
    "gym config value": ("{type: reasoning_gym, dataset: chain_sum, config: {min_terms: x}}", "refuses .*; mend"),
    "no module": ("{type: python, function: 'no_module:rows'}", "cannot be imported: ModuleNotFoundError .*; mend"),
    "no function": ("{type: python, function: 'code_good:no'}", "code_good:no: no such function; write it"),
    "no colon": ("{type: python, function: code_good}", "no such function; write it as module:name"),
    "no name at all": ("{type: python, function: ''}", "cannot be imported: ValueError .*; mend"),
    "built in": ("{type: python, function: 'math:sqrt'}", "has no source file to pin; give a function"),
    "another module": ("{type: python, function: 'colorsys:rows'}", "another module of this name already; rename"),
    "unknown argument": ("{type: python, function: 'code_good:rows', arguments: {n: 1}}", "TypeError .*keyword"),
    "yields texts": ("{type: python, function: 'code_good:texts'}", "record 0 is not a mapping with a 'key'; yield"),
    "yields no key": ("{type: python, function: 'code_good:keyless'}", "record 1 is not a mapping with a 'key'"),
    "yields nothing": ("{type: python, function: 'code_good:none'}", "record 0: TypeError .*not iterable.*; mend"),
    "raises": ("{type: python, function: 'code_good:raises'}", "record 1: ZeroDivisionError .*good.py, line 12 "),
    "syntax error": ("{type: python, function: 'code_syntax:rows'}", "SyntaxError at .*code_syntax.py, line 2 "),
    "module raises": ("{type: python, function: 'code_raises:rows'}", r"KeyError at .*code_raises.py, line 1 \('x'\)"),
    "no PubMedQA": ("{type: pubmedqa, questions: a.json, test_ids: b.json, part: train}", "No such file.*; check"),
    "wrong PubMedQA": ("{type: pubmedqa, questions: q.json, test_ids: q.json, part: train}", "q.json: not PubMedQA's"),
    "wrong solutions": ("{type: labelled_solutions, path: rows.jsonl, half: train}", "rows.jsonl, line 1: not a quest"),
}
CODE = {
    "code_good.py": """\
NUMBER = 3
def rows():
    yield {"key": 1}
def texts():
    yield "x"
def keyless():
    yield {"key": "a", "q": "b?", "answer": "c"}
    yield {"q": 2}
none = lambda: None
def raises():
    yield {"key": 1, "q": "b?", "answer": "c"}
    1 / 0
""",
    "code_syntax.py": "x = 1\ndef rows(:\n",
    "code_raises.py": "{}['x']\n",
    "colorsys.py": "def rows(): return []\n",
    "folder/x.txt": "x",
    "q.json": '{"1": {"QUESTION": "why?"}}',
}


@pytest.mark.parametrize("case", WRONG_SOURCES)
def test_a_source_that_cannot_be_had_is_refused_with_the_line_of_the_source(tmp_path, case, monkeypatch):
    source, message = WRONG_SOURCES[case]
    monkeypatch.delenv("WHETSTONE_DATA", raising=False)
    import colorsys  # noqa: F401 - a module that is there already

    for name in set(CODE) - {"colorsys.py"}:  # another test's module of the same name
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    recipe = changed(("{type: files, path: rows.jsonl}", source))
    refused(tmp_path, f"recipe.yaml, tasks.t.source(.offline)?, line 5: .*{message}", recipe, CODE)


def a_csv(*rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


ZIPPED = gzip.compress(lines(*ROWS))
TABLE = parquet(*ROWS)
DAMAGED = {
    "torn line": ("a.jsonl", lines(*ROWS)[:-20], "line 6: not a JSON object .a truncated line.*; mend or delete"),
    "a list": ("a.jsonl", lines(*ROWS, ["q", "a"]), "line 7: not a JSON object"),
    "NULs in lines": ("a.jsonl", lines(*ROWS[:2]) + bytes(4096), "line 3: a NUL byte, not text; fetch"),
    "NULs in JSON": ("a.json", bytes(4096), "line 1: a NUL byte, not text; fetch"),
    "NULs in CSV": ("a.csv", b"q,answer\n" + bytes(64), "line 2: a NUL byte, not text; fetch"),
    "Latin-1 in lines": ("a.jsonl", lines(ROWS[0]) + '{"q": "Öl?"}'.encode("latin-1"), "line 2: not UTF-8 text; conv"),
    "Latin-1 in CSV": ("a.csv", "q,answer\na,b\nÖl?,c\n".encode("latin-1"), "line 3: not UTF-8 text"),
    "UTF-16": ("a.jsonl", '{"q": "why?"}'.encode("utf-16"), "line 1: a NUL byte"),
    "half a character": ("a.jsonl", b'{"q": "\\ud83d?", "answer": "1"}', r"record a.jsonl:1: holds half a character"),
    "nested too deeply": ("a.jsonl", b"[" * 100_000, "line 1: not a JSON object"),
    "JSON nested too deeply": ("a.json", b"[" * 100_000, "line 1: nested too deeply; flatten"),
    "an endless number": ("a.json", b'[{"q": ' + b"1" * 5000 + b"}]", "line 1: not valid JSON .*digits.*; mend"),
    "broken JSON": ("a.json", b'[\n{"q": "why?"},\n{"q": }\n]', "line 3: not valid JSON .*; mend that line"),
    "torn JSON": ("a.json", json.dumps(ROWS, indent=1).encode()[:-9], r"line \d+: not valid JSON"),
    "JSON text": ("a.json", b'"why?"', "line 1: holds no list of records; set the source's 'records'"),
    "JSON scalars": ("a.json", b'[{"q": "a?", "answer": "b"}, 3]', "record 1 is no JSON object; mend it or set"),
    "empty lines file": ("a.jsonl", b"", "line 5: a.jsonl gives no row; mend it or take"),
    "empty JSON file": ("a.json", b"", "a.json gives no row; mend"),
    "empty CSV": ("a.csv", b"", "line 1: no header of distinct column names; add one"),
    "empty Parquet": ("a.parquet", b"", "row 0: not readable as Parquet .*; fetch"),
    "ragged CSV": ("a.csv", a_csv(["q", "answer"], ["a", "b"], ["c"]), "line 3: 1 cells where the header has 2; quote"),
    "commas in CSV": ("a.csv", b'q,answer\n"a\nb",c\nwhy, now?,d\n', "line 4: 3 cells where the header has 2"),
    "CSV without header": ("a.csv", a_csv(["why?", "so"], ["how?", "thus"]), "record a.csv:2: .*'q' is undefined"),
    "CSV columns twice": ("a.csv", a_csv(["q", "q"], ["how?", "thus"]), "line 1: no header of distinct column names"),
    "open CSV quote": ("a.csv", b'q,answer\na,b\n"why?,c\nd,e\nf,g\n', "line 3: not valid CSV .*; mend the quotes"),
    "text after a quote": ("a.csv", b'q,answer\n"a"?,b\n', "line 2: not valid CSV .*; mend the quotes"),
    "torn gzip": ("a.jsonl.gz", ZIPPED[:-30], "a.jsonl.gz: truncated or damaged gzip .*; fetch"),
    "damaged gzip": ("a.jsonl.gz", ZIPPED[:20] + b"\xff\xff\xff" + ZIPPED[23:], "damaged gzip .*; fetch"),
    "gzip of Latin-1": ("a.csv.gz", gzip.compress("q\nÖl?\n".encode("latin-1")), "line 2: not UTF-8 text"),
    "torn Parquet": ("a.parquet", TABLE[:-100], "row 0: not readable as Parquet .*; fetch"),
    "damaged Parquet": ("a.parquet", TABLE[:4] + bytes(80) + TABLE[84:], "row 0: not readable as Parquet .*; fetch"),
    "gzip of a torn Parquet": ("a.parquet.gz", gzip.compress(TABLE[:-9]), "row 0: not readable as Parquet"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_with_its_name_and_line(tmp_path, case):
    name, content, message = DAMAGED[case]
    recipe = changed(("path: rows.jsonl", f"path: {name}"))
    assert name in refused(tmp_path, f"recipe.yaml, tasks.t.*{message}", recipe, {name: content})


def turns(*pairs: tuple[str, object]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in pairs]


WRONG_RECORDS = {
    "no layout": ({"question": "a?", "label": 1}, "columns key, label, question are of no layout known .*; mend"),
    "a role unknown": ({"messages": turns(("robot", "hi"))}, "messages: unknown role 'robot'; rename"),
    "a role that is a list": ({"messages": turns((["user"], "hi"))}, "messages: unknown role .*; rename"),
    "turns without text": ({"messages": turns(("user", None))}, "a turn of user has no text; mend"),
    "answers alone": ({"messages": turns(("assistant", "hi"))}, "messages hold no user turn; mend"),
    "Alpaca's output a number": ({"instruction": "a?", "output": 3}, "expected text for the assistant's turn, not"),
    "prompt a mapping": ({"prompt": {"a": 1}, "completion": "b"}, "prompt: expected a list of turns"),
    "chosen alone": ({"prompt": "a?", "chosen": "b"}, "chosen, key, prompt are of no layout"),
    "chosen without question": ({"chosen": "a", "rejected": "b"}, "no user turn before them; mend"),
    "chosen of another question": (
        {"chosen": turns(("user", "a?"), ("assistant", "b")), "rejected": turns(("user", "c?"), ("assistant", "d"))},
        "chosen and rejected answer different conversations; mend"
    ),
    "a row of another task": ({**ROW, "task": "s"}, "row 'r1' is of task 's', not 't' or t/...; mend"),
    "a row of no kind": ({**ROW, "kind": "poem"}, "kind: Input should be 'instruction'.*; mend"),
    "a row with more": ({**ROW, "level": 3}, "level: Extra inputs are not permitted; mend"),
    "a row without answer": ({**ROW, "answer": None}, "there is no answer to judge against; mend"),
    "a row without question": (
        {**ROW, "messages": [], "chosen": TURNS, "rejected": TURNS}, "messages hold no user turn; mend"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_RECORDS)
def test_a_record_of_no_use_is_refused_with_its_place(tmp_path, case):
    record, message = WRONG_RECORDS[case]
    recipe = changed(('    prompt: "{{ q }}"\n', ""), ("    verifiers: [number]\n", ""))
    message = f"recipe.yaml, tasks.t.source, line 5: record rows.jsonl:2: .*{message}"
    refused(tmp_path, message, recipe, {"rows.jsonl": b"\n" + lines(record)})


NO_RECORDS = {
    "a list with a key": ("records: data", "[]", "line 1: holds no key 'data'; mend the source's 'records'"),
    "another key": ("records: data", '{"date": []}', "line 1: holds no key 'data'; mend the source's 'records'"),
    "a number": ("records: data", '{"data": 3}', "line 1: holds no list of records; set"),
    "lists": ("records: data", '{"data": [[]]}', "record 0 is no JSON object; mend"),
    "nothing to explode": ("explode: inner", '[{"q": 1}]', "record a.json:0: column 'inner' holds no list .*; mend"),
    "texts to explode": ("explode: inner", '[{"inner": ["a"]}]', "record a.json:0: column 'inner' holds no list"),
}


@pytest.mark.parametrize("case", NO_RECORDS)
def test_a_file_without_the_records_that_the_source_names_is_refused(tmp_path, case):
    key, content, message = NO_RECORDS[case]
    recipe = changed(("path: rows.jsonl", f"path: a.json, {key}"))
    refused(tmp_path, f"recipe.yaml, tasks.t.source, line 5: .*a.json.*{message}", recipe, {"a.json": content.encode()})


def test_a_recipe_of_mostly_benchmark_items_is_refused(tmp_path):
    recipe = changed(("protect: heldout", "protect: all"), ("    train_rows: 2\n", ""))
    attempt(tmp_path / "good", recipe)
    rows, _ = task_rows(load_recipe("recipe.yaml", beside=tmp_path / "good")[0], "t")
    items = [row.model_copy(update={"id": f"bench/{row.id}", "task": "bench"}) for row in rows[:4]]
    refused(tmp_path, "line 5: 4 of 5 rows are items of a benchmark: .*; take another source", recipe, protected=items)


def test_rows_with_one_id_are_refused(tmp_path):
    rows = lines(ROW, {**ROW, "id": "r2", "messages": turns(("user", "how?"), ("assistant", "thus"))},
                 {**ROW, "messages": turns(("user", "when?"), ("assistant", "now"))})  # fmt: skip
    recipe = changed(('    prompt: "{{ q }}"\n', ""), ("    heldout_rows: 1\n", ""), ("    train_rows: 2\n", ""))
    refused(tmp_path, "'r1'", recipe, {"rows.jsonl": rows})


def test_a_fault_found_by_another_process_is_the_same_sentence(tmp_path):
    records = [{"q": f"{n}?", "answer": "a"} for n in range(9000)]
    recipe = changed(("    train_rows: 2\n", ""), ("protect: heldout", "decontaminate: none"))
    refused(tmp_path, "tasks.t.prompt, line 6: record rows.jsonl:9001: .*'q' is undefined", recipe,
            {"rows.jsonl": lines(*records, {"Q": "?"})}, workers=2)  # fmt: skip
