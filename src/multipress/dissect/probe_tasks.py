"""What a probe is asked to tell: examples with labels and control labels, made from the data folder.

An example is one span of words, or two; its label is told from the mean of the words' vectors. The control label is
drawn at random for each kind of word, upper and lower case alike, so that a probe that tells it has learned the words
by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from multipress.dissect.reading import Span
from multipress.errors import DataError, SpecError
from multipress.reproducibility import seed_for
from multipress.tasks.files import Table, read_table

__all__ = ["PROBES", "Examples", "Source", "load_source", "probe_names", "sources_of"]

TRAIN, DEV, TEST = range(3)
SENTENCES = (3000, 750, 1500)  # most of each split
SENTENCES_OF = {"probing/word_content": (10_000, 1000, 1500)}  # of 1,000 classes, few examples teach nothing
TREES = (2500, 800, 1200)
WORDS = (10_000, 2500, 5000)
PAIRS = (6000, 1500, 3000)
WINDOW_WORDS = 48  # of a document that are read together
WINDOWS = (1200, 300, 600)
PAIRS_A_PHENOMENON = (40, 8, 12)

SENTENCE_TASKS = {
    "bigram_shift": "whether two words were swapped",
    "coordination_inversion": "whether two clauses were swapped",
    "obj_number": "number of the object",
    "past_present": "tense of the main verb",
    "sentence_length": "words of the sentence, six classes",
    "subj_number": "number of the subject",
    "tree_depth": "depth of the parse, five classes",
    "word_content": "which of 1,000 words the sentence holds",
}
TREE_TASKS = {
    "pos": "part of speech of a word",
    "dependency_relation": "relation of a word to its head",
    "parent_relation": "relation of a word's head to its own head",
    "grandparent_relation": "the same, one word farther up",
    "dependency_arc": "whether one word is the head of another",
}
SENSE_TASKS = {
    "supersense_role": "what an adposition means in its scene",
    "supersense_function": "what an adposition means as a word",
}
# Name to what is told, and the data that it is made from.
PROBES: dict[str, tuple[str, str]] = {
    **{name: (what, f"probing/{name}") for name, what in SENTENCE_TASKS.items()},
    **{name: (what, "ud_ewt") for name, what in TREE_TASKS.items()},
    **{name: (what, "semantic/streusle_adpositions") for name, what in SENSE_TASKS.items()},
    "coreference_arc": ("whether two mentions are the same entity", "semantic/gum_coref"),
    "minimal_pairs": ("which of two sentences is grammatical", "probing_minimal_pairs"),
}


@dataclass(frozen=True)
class Examples:
    """The examples of one task.

    Args:
        name: The task.
        combine: `one` span's vector, `pair` (both and their product), or `difference` of two.
        spans: Row of words, first word and the one after the last, of each of K spans: (N, K, 3).
        labels: Classes from 0 (N,).
        control: Classes by kind of word (N,).
        split: `TRAIN`, `DEV` or `TEST` (N,).
        cluster: Examples of one sentence or document, which depend on each other, have one number (N,).
        num_classes: How many classes there are.
    """

    name: str
    combine: str
    spans: np.ndarray
    labels: np.ndarray
    control: np.ndarray
    split: np.ndarray
    cluster: np.ndarray
    num_classes: int


@dataclass(frozen=True)
class Source:
    """Rows of words, and what is asked about them.

    Args:
        rows: Rows of words.
        tasks: Examples by task.
    """

    rows: list[list[str]]
    tasks: dict[str, Examples]


@dataclass(frozen=True)
class _Found:
    """An example before its label is a number: spans, label, the words that decide its control label, split.

    `document` is the number of its document, where one has several rows.
    """

    spans: tuple[tuple[int, int, int], ...]
    label: str
    words: str
    split: int
    document: int | None = None


def probe_names(asked: str) -> tuple[str, ...]:
    """Names from `all` or a list with commas.

    Raises:
        SpecError: an unknown name; the message has the known ones.
    """
    if asked == "all":
        return tuple(PROBES)
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if name not in PROBES:
            raise SpecError(f"No probe {name!r}; there are: all, {', '.join(PROBES)}.")
    return names


def sources_of(names: Sequence[str]) -> dict[str, list[str]]:
    """The tasks by the data that they share, so that each text is read by a model once."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(PROBES[name][1], []).append(name)
    return found


def load_source(source: str, tasks: Sequence[str], data_dir: Path | None) -> Source:
    """Rows and examples of tasks that share a source.

    Args:
        source: As `sources_of` names it.
        tasks: Tasks of it.
        data_dir: The data folder; None: there is none.

    Raises:
        DataError: the data is not there or has another layout.
    """
    if data_dir is None:
        raise DataError(
            f"The probe {tasks[0]} needs {source} in a data folder. Name the folder with --data-dir or MULTIPRESS_DATA."
        )
    kind = source.split("/", maxsplit=1)[0]
    load: Callable[[Path, str], tuple[list[list[str]], Callable[[str], Iterator[_Found]]]] = {
        "probing": _sentences,
        "ud_ewt": _trees,
        "semantic": _senses if source.endswith("adpositions") else _documents,
        "probing_minimal_pairs": _minimal_pairs,
    }[kind]
    try:
        rows, examples = load(data_dir, source)
        combine = {"probing_minimal_pairs": "difference"}.get(kind, "")
        made = {}
        for task in tasks:
            style = combine or ("pair" if task.endswith("_arc") else "one")
            made[task] = _numbered(task, style, list(examples(task)))
        return Source(rows, made)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{data_dir / source} does not have the layout that probes read: {error!r}.") from None


def _numbered(task: str, combine: str, found: list[_Found]) -> Examples:
    """Labels as numbers, and the control labels: each kind of word draws one as the labels of the training are."""
    names = {name: index for index, name in enumerate(sorted({one.label for one in found}))}
    labels = np.array([names[one.label] for one in found])
    split = np.array([one.split for one in found])
    if len(names) < 2 or any(not np.any(split == part) for part in (TRAIN, DEV, TEST)):
        raise ValueError(f"{task} has {len(names)} classes, or a split without examples")
    in_train = np.sort(labels[split == TRAIN])
    words = [one.words.lower() for one in found]  # as an uncased model reads them
    draws = {word: seed_for("control", task, word) % len(in_train) for word in words}
    control = in_train[[draws[word] for word in words]]
    spans = np.array([one.spans for one in found])
    cluster = np.array([one.spans[0][0] if one.document is None else one.document for one in found])
    return Examples(task, combine, spans, labels, control, split, cluster, len(names))


def _sample(places: Sequence[Any], most: int, *seed: object) -> list[Any]:
    """At most so many, drawn without replacement, in their order."""
    if len(places) <= most:
        return list(places)
    draw = np.random.Generator(np.random.PCG64(seed_for("probes", *seed))).permutation(len(places))[:most]
    return [places[index] for index in sorted(draw)]


def _table(path: Path) -> Table:
    if not path.is_file():
        raise DataError(f"There is no file {path}, which the probe needs. See docs/dissection.md for where data lies.")
    return read_table(path)


def _split_files(folder: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    for split, name in enumerate(("train", "validation", "test")):
        table = _table(folder / f"{name}.parquet")
        yield split, {column: table.read(column) for column in columns}


def _sentences(data_dir: Path, source: str) -> tuple[list[list[str]], Callable[[str], Iterator[_Found]]]:
    table = _table(data_dir / f"{source}.parquet")
    split, label, sentence = (table.read(name) for name in ("split", "label", "sentence"))
    rows: list[list[str]] = []
    found = []
    for part, name in enumerate(("train", "dev", "test")):
        most = SENTENCES_OF.get(source, SENTENCES)[part]
        for place in _sample([i for i, own in enumerate(split) if own == name], most, source, name):
            words = sentence[place].split()
            found.append(_Found(((len(rows), 0, len(words)),), str(label[place]), words[0], part))
            rows.append(words)
    return rows, lambda task: iter(found)


def _trees(data_dir: Path, source: str) -> tuple[list[list[str]], Callable[[str], Iterator[_Found]]]:
    rows: list[list[str]] = []
    trees: list[tuple[int, dict[str, list[Any]]]] = []
    columns = ("tokens", "upos", "head", "deprel")
    for split, values in _split_files(data_dir / source, columns):
        for place in _sample(range(len(values["tokens"])), TREES[split], source, split):
            trees.append((split, {name: values[name][place] for name in columns}))
            rows.append(values["tokens"][place])

    def examples(task: str) -> Iterator[_Found]:
        for part in (TRAIN, DEV, TEST):
            own = [(row, tree) for row, (split, tree) in enumerate(trees) if split == part]
            found = [one for row, tree in own for one in _tree_examples(task, row, tree, part)]
            yield from _sample(found, WORDS[part], task, part)

    return rows, examples


def _tree_examples(task: str, row: int, tree: dict[str, list[Any]], split: int) -> Iterator[_Found]:
    tokens, heads = tree["tokens"], tree["head"]
    relations = [relation.split(":")[0] for relation in tree["deprel"]]
    if task == "dependency_arc":
        yield from _arcs(row, tokens, heads, split)
        return
    up = {"parent_relation": 1, "grandparent_relation": 2}.get(task, 0)
    for word, token in enumerate(tokens):
        place: int | None = word
        for _ in range(up):
            # A head is counted from 1; 0 is the root, which has no relation.
            place = heads[place] - 1 if place is not None and heads[place] else None
        if place is not None:
            label = tree["upos"][word] if task == "pos" else relations[place]
            yield _Found(((row, word, word + 1),), label, token, split)


def _arcs(row: int, tokens: list[str], heads: list[int], split: int) -> Iterator[_Found]:
    """Each word with its head, and with another word of the sentence."""
    random = np.random.Generator(np.random.PCG64(seed_for("arcs", *tokens)))
    for word, head in enumerate(heads):
        others = [other for other in range(len(tokens)) if other not in (word, head - 1)]
        if not head or not others:
            continue
        for other, label in ((head - 1, "arc"), (int(random.choice(others)), "none")):
            spans = ((row, other, other + 1), (row, word, word + 1))
            yield _Found(spans, label, tokens[word], split)  # the control is of one word: pairs are seldom met again


def _senses(data_dir: Path, source: str) -> tuple[list[list[str]], Callable[[str], Iterator[_Found]]]:
    rows: list[list[str]] = []
    targets: list[tuple[int, int, str, dict[str, str]]] = []
    for split, values in _split_files(data_dir / source, ("tokens", "positions", "role", "function")):
        for tokens, *target in zip(*values.values(), strict=True):
            for place, role, function in zip(*target, strict=True):
                senses = {"supersense_role": role, "supersense_function": function}
                targets.append((split, place, tokens[place], {**senses, "row": str(len(rows))}))
            rows.append(tokens)

    def examples(task: str) -> Iterator[_Found]:
        for split, place, word, senses in targets:
            yield _Found(((int(senses["row"]), place, place + 1),), senses[task], word, split)

    return rows, examples


def _documents(data_dir: Path, source: str) -> tuple[list[list[str]], Callable[[str], Iterator[_Found]]]:
    rows: list[list[str]] = []
    kept: list[_Found] = []
    for split, values in _split_files(data_dir / source, ("tokens", "mentions")):
        documents = zip(*values.values(), strict=True)
        windows = [(number, window) for number, one in enumerate(documents) for window in _windows(*one)]
        found: list[_Found] = []
        for number, (words, own) in _sample(windows, WINDOWS[split], source, split):
            found += (replace(one, document=number) for one in _coreferences(len(rows), words, own, split))
            rows.append(words)
        kept += _sample(found, PAIRS[split], source, split)
    return rows, lambda task: iter(kept)


def _windows(
    sentences: list[list[str]], mentions: list[dict[str, Any]]
) -> Iterator[tuple[list[str], list[tuple[Span, str]]]]:
    """Neighboring sentences together, and the spans and entities of their mentions."""
    words: list[str] = []
    starts: dict[int, int] = {}

    def close() -> tuple[list[str], list[tuple[Span, str]]]:
        own = [
            ((starts[m["sentence"]] + m["start"], starts[m["sentence"]] + m["end_exclusive"]), str(m["entity_id"]))
            for m in mentions
            if m["sentence"] in starts
        ]
        return words, sorted(own)

    for number, sentence in enumerate(sentences):
        if words and len(words) + len(sentence) > WINDOW_WORDS:
            yield close()
            words, starts = [], {}
        starts[number] = len(words)
        words = [*words, *sentence]
    if words:
        yield close()


def _coreferences(row: int, words: list[str], mentions: list[tuple[Span, str]], split: int) -> Iterator[_Found]:
    """Each mention with the last one before it of the same entity, and with one of another."""
    random = np.random.Generator(np.random.PCG64(seed_for("coreference", *words)))
    for place, (span, entity) in enumerate(mentions):
        same = [other for other, name in mentions[:place] if name == entity and other != span]
        others = [other for other, name in mentions[:place] if name != entity and other != span]
        if not same or not others:
            continue
        for other, label in ((same[-1], "same"), (others[int(random.integers(len(others)))], "other")):
            yield _Found(((row, *other), (row, *span)), label, words[span[1] - 1], split)


def _minimal_pairs(data_dir: Path, source: str) -> tuple[list[list[str]], Callable[[str], Iterator[_Found]]]:
    table = _table(data_dir / source / "blimp.parquet")
    good, bad, kinds = (table.read(name) for name in ("sentence_good", "sentence_bad", "UID"))
    by_kind: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(place)
    rows: list[list[str]] = []
    found = []
    for kind, places in by_kind.items():
        drawn = _sample(places, sum(PAIRS_A_PHENOMENON), source, kind)
        splits = np.repeat([TRAIN, DEV, TEST], PAIRS_A_PHENOMENON)[: len(drawn)]
        for number, place in enumerate(drawn):
            sides = [good[place].split(), bad[place].split()]
            label = number % 2  # which of the two comes first is balanced
            order = sides[::-1] if label else sides
            spans = tuple((len(rows) + side, 0, len(words)) for side, words in enumerate(order))
            found.append(_Found(spans, str(label), sides[0][0], int(splits[number])))
            rows += order
    return rows, lambda task: iter(found)
