import csv
import io
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import DataError, MissingExtraError
from multipress.tasks.files import SUFFIXES, read_table

WORDS = ["NA", "null", "nan", "None", "N/A", "", " ", "TRUE", "1", "1.50", "-"]


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def columns(table):
    return {name: table.read(name) for name in table.names}


# Characters that a CSV file can hold: any but a zero and half of a surrogate pair.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6), separator=st.sampled_from(",;\t"))
def test_any_text_comes_back_from_csv(tmp_path_factory, rows, separator):
    path = tmp_path_factory.mktemp("csv") / ("x.tsv" if separator == "\t" else "x.csv")
    buffer = io.StringIO()
    # All quoted, because a lone carriage return in a bare field is a line end to any reader.
    writer = csv.writer(buffer, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerow(["one", "two"])
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode())
    assert columns(read_table(path)) == {"one": [a for a, _ in rows], "two": [b for _, b in rows]}


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(TEXT, st.integers() | st.none() | st.booleans()), min_size=1, max_size=6))
def test_any_value_comes_back_from_json_lines(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    lines = [json.dumps({"a": a, "b": b}, ensure_ascii=False) for a, b in rows]
    path.write_bytes("\n".join(lines).encode())
    assert columns(read_table(path)) == {"a": [a for a, _ in rows], "b": [b for _, b in rows]}


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=80), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_give_columns_or_a_data_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"x{suffix}"
    path.write_bytes(data)
    try:
        table = read_table(path)
    except DataError as error:
        message = str(error)
    else:
        message = str(path)
        assert all(len(values) == table.num_rows > 0 for values in columns(table).values())
    assert str(path) in message
    assert "\n" not in message


def test_parquet_csv_and_json_hold_the_same_texts(tmp_path, write):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    texts = ["a, b", 'say "hi"', "ü\u2028x", "NA", "two\nlines"]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["text"], *([text] for text in texts)])
    parquet.write_table(pa.table({"text": texts}), tmp_path / "x.parquet")
    files = [
        write("x.csv", buffer.getvalue()),
        write("x.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)),
        write("x.json", json.dumps([{"text": text} for text in texts], indent=1)),
        tmp_path / "x.parquet",
    ]
    for file in files:
        assert read_table(file).read("text") == texts, file.name


@pytest.mark.parametrize("word", WORDS)
def test_words_for_nothing_are_text(write, word):
    table = read_table(write("x.csv", f'text,label\n"{word}",{word}\n'))
    assert columns(table) == {"text": [word], "label": [word]}


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(write):
    table = read_table(write("x.csv", b"\xef\xbb\xbftext,label\r\ngood,1\r\n\r\nbad,0\r\n"))
    assert columns(table) == {"text": ["good", "bad"], "label": ["1", "0"]}
    assert table.where(1).endswith("x.csv, line 4")


def test_a_row_is_found_at_the_line_where_it_begins(write):
    table = read_table(write("x.csv", 'text,label\n"two\nlines",1\nbad,0\n'))
    assert [table.where(row).rsplit(" ", 1)[1] for row in range(2)] == ["2", "4"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_with_another_separator_is_read(write, separator):
    table = read_table(write("x.csv", f"text{separator}label\na, b{separator}1\n"))
    assert columns(table) == {"text": ["a, b"], "label": ["1"]}


def test_tsv_with_bare_quotes_is_read_as_it_stands(write):
    table = read_table(write("x.tsv", 'sentence\tlabel\n"Yes," he said\t1\n5" pipe "\t0\n"open\t1\n'))
    assert table.read("sentence") == ['"Yes," he said', '5" pipe "', '"open']


def test_texts_longer_than_the_csv_modules_limit_are_read_and_the_limit_stays(write):
    before = csv.field_size_limit()
    text = "long " * 100_000
    assert read_table(write("x.csv", f"text,label\n{text},1\n")).read("text") == [text]
    assert csv.field_size_limit() == before


def test_names_missing_in_some_json_objects_are_none(write):
    table = read_table(write("x.jsonl", '{"a": "x"}\n{"b": 1}\n'))
    assert columns(table) == {"a": ["x", None], "b": [None, 1]}


BAD = {
    "empty": ("x.csv", "", r"x\.csv is empty"),
    "only blank": ("x.csv", " \n\n", r"x\.csv is empty"),
    "header only": ("x.csv", "text,label\n", r"columns \('text', 'label'\) but no rows"),
    "latin-1": ("x.csv", "text,label\ncaf\xe9,1\n".encode("latin-1"), r"byte 0xe9 at offset 14, line 2"),
    "utf-16": ("x.csv", "text,label\nx,1\n".encode("utf-16"), r"It looks like UTF-16"),
    "utf-16 without a mark": ("x.csv", "text,label\nx,1\n".encode("utf-16-le"), r"zero byte in line 1"),
    "too many fields": (
        "x.csv",
        "text,label\na,1\nb, c,1\nd, e,0\n",
        r"line 3: 3 fields.*2 columns \(1 more",
    ),
    "too few fields": ("x.csv", "text,label\na\n", r"line 2: 1 fields"),
    "unclosed quote": ("x.csv", 'text,label\na,1\n"b,0\nc,1\n', r"line 3: the quotes of this row"),
    "text after a quote": ("x.csv", 'text,label\n"a" b,1\n', r"line 2: the quotes of this row"),
    "tsv with neither reading": ("x.tsv", 'text\tlabel\n"a\t1\t2\nb\t0\n', r"line 2: the quotes of this row"),
    "column twice": ("x.csv", "text,label,text\na,1,b\n", r"two columns named 'text'"),
    "broken json": ("x.jsonl", '{"text": "a"}\n\n{"text": \n', r"line 3: not JSON: .* at character"),
    "broken json list": ("x.json", '[{"text": "a"},\n{"text" 1}]', r"line 2: not JSON"),
    "json number": ("x.jsonl", '{"text": "a"}\n3\n', r"line 2: not a JSON object, but 3"),
    "json list of texts": ("x.json", '["a", "b"]', r"item 1: not a JSON object"),
    "json name twice": ("x.jsonl", '{"text": "a", "text": "b"}\n', r"line 1: the name 'text' occurs twice"),
    "deep json": ("x.jsonl", "[" * 100_000, r"not JSON that can be read"),
    "long json number": ("x.jsonl", f'{{"label": {"9" * 5000}}}', r"line 1: not JSON that can be read"),
    "no parquet": ("x.parquet", b"PAR1 no", r"not a Parquet file that can be read"),
    "empty parquet": ("x.parquet", b"", r"x\.parquet is empty"),
    "unknown kind": ("x.xlsx", b"PK", r"no known kind; a data file ends in \.csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_file_is_an_error_that_says_what_and_where(write, case):
    name, content, message = BAD[case]
    with pytest.raises(DataError, match=message):
        read_table(write(name, content))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read_table(tmp_path / "x.csv")
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_table(tmp_path / "y.csv")


def test_a_truncated_parquet_file_is_an_error(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": ["a" * 100] * 50}), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            read_table(path)


def test_parquet_text_that_is_not_utf8_is_an_error(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"], pa.binary()).buffers())
    parquet.write_table(pa.table({"text": wrong}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="'text' holds text that is not UTF-8"):
        read_table(tmp_path / "x.parquet").read("text")


def test_without_pyarrow_a_parquet_file_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "multipress\[train\]"'):
        read_table(tmp_path / "x.parquet")


def test_reading_needs_neither_torch_nor_pyarrow_nor_pandas():
    code = (
        "import sys; from multipress.tasks import load_task; from multipress.spec import DataSpec; "
        "load_task(DataSpec(task='banking77')); "
        "print({'torch', 'transformers', 'pyarrow', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "set()"
