"""Rows as `multipress dissect` gives them, made up."""


def row(name, value, **context):
    around = {"artifact": "small", "against": "dense", "words": 9814, "text": "WikiText-2"}
    return {"run_id": "", "name": name, "value": value, "unit": "share", "context": {**around, **context}}


def tenths(value, spread, layer):
    """The number without each tenth of the text, for an interval of `spread` to each side; others in every layer."""
    order = [(place * (2 * layer + 1)) % 11 for place in range(1, 11)]
    error = (9 / 10 * sum((place - 5.5) ** 2 for place in order)) ** 0.5
    return [value + spread / 2.262 / error * (place - 5.5) for place in order]


def measured(name, values, spread=0.01, change=0.0, **context):
    """One row a layer, with intervals."""
    return [
        row(
            name, value, layer=layer, against_layer=layer, low=value - spread, high=value + spread,
            against_value=value - change, change=change, change_low=change - spread, change_high=change + spread,
            without=tenths(value, spread, layer), change_without=tenths(change, spread, layer), **context,
        )
        for layer, value in values.items()
    ]  # fmt: skip


def zeros(layer, matrix, pruned):
    return row(
        "zero_share", pruned / 100, layer=layer, matrix=matrix, is_bias=False, size=100, zeros=pruned, pruned=pruned,
        tensor="t",
    )  # fmt: skip


def dissected_rows():
    found = measured("linear_cka", {0: 0.99, 1: 0.9, 2: 0.7})
    found += [row("linear_cka", 0.3, layer=0, against_layer=2), row("mincorr", 0.5, layer=0, artifact="small, other")]
    for name in ("pwcca", "svcca", "maxcorr", "regression"):
        found += measured(name, {0: 0.9, 1: 0.8, 2: 0.7})
    found += measured("pca_components", {0: 30, 1: 29, 2: 20}, spread=2, change=-5)
    found += measured("attention_maxcorr", {1: 0.95, 2: 0.6}) + measured("attention_entropy", {1: 2.5, 2: 2.0})
    found += [zeros(1, "query", 20), zeros(1, "value", 80)]
    found += [
        row("attention_head_match", 0.9, layer=1, against_layer=1, head=1, match=2),
        row("attention_head_match", 0.8, layer=1, against_layer=1, head=2, match=2),
    ]
    found += measured("probe_accuracy", {0: 0.6, 1: 0.7, 2: 0.8}, change=-0.05, probe="pos")
    found += measured("probe_accuracy", {0: 0.6, 1: 0.7, 2: 0.8}, change=-0.005, probe="past_present")
    return found


def marked(rows, mark):
    """The rows with a text behind each of theirs."""
    return [
        {**one, "context": {k: v + mark if isinstance(v, str) else v for k, v in one["context"].items()}}
        for one in rows
    ]
