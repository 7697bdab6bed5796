import json

import pytest

from multipress.budget.memo import Memo
from multipress.errors import StoreError


def test_a_question_is_answered_once_and_another_on_its_own(tmp_path):
    asked = []

    def answer(value):
        def give():
            asked.append(value)
            return value

        return give

    memo = Memo(tmp_path / "answers.json")
    assert [memo.get(["a", 1], answer(5)), memo.get(["a", 1], answer(6)), memo.get(["a", 2], answer([7]))] == [
        5,
        5,
        [7],
    ]
    assert Memo(tmp_path / "answers.json").get(["a", 1], answer(8)) == 5
    assert asked == [5, [7]]
    assert len(json.loads((tmp_path / "answers.json").read_text())) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_file_is_named_with_what_to_do(content, tmp_path):
    (tmp_path / "answers.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"answers\.json is damaged\. Remove it"):
        Memo(tmp_path / "answers.json").get(["a"], lambda: 1)
