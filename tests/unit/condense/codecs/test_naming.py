"""Names of codecs are read, written back and, where they are none, answered with the nearest."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.condense.codecs.naming import Codec, Part, parse_codec, require_codecs, suggest
from aerogel.errors import ConfigError

KNOWN = {
    "stored-fp32": (Part("fp32"),),
    "stored-fp16": (Part("fp16"),),
    "stored-int8": (Part("int8"),),
    "stored-top5": (Part("top", (5,)),),
    "stored-top10+int8": (Part("top", (10,)), Part("int8")),
    "stored-pruned10": (Part("pruned", (10,)),),
    "stored-pruned10+top5+fp32": (Part("pruned", (10,)), Part("top", (5,)), Part("fp32")),
    "stored-vq256": (Part("vq", (256,)),),
    "stored-gauss16": (Part("gauss", (16,)),),
    "stored-pruned4+pq2x16": (Part("pruned", (4,)), Part("pq", (2, 16))),
}


@pytest.mark.parametrize("name", KNOWN)
def test_names_are_read_and_written_back(name: str) -> None:
    codec = parse_codec(name)
    assert codec.parts == KNOWN[name]
    assert codec.name == name


views = st.one_of(st.just(None), st.integers(2, 10**6).map(lambda n: Part("pruned", (n,))))
classes = st.one_of(st.just(None), st.integers(1, 10**6).map(lambda n: Part("top", (n,))))
numbers = st.sampled_from([None, Part("fp32"), Part("fp16"), Part("int8")])
rows = st.integers(2, 2**15)
books = st.one_of(
    rows.map(lambda n: Part("vq", (n,))), st.tuples(rows, rows).map(lambda each: Part("pq", each))
)


@given(views, st.one_of(st.tuples(classes, numbers), st.tuples(books)))
def test_every_name_in_order_is_read_and_all_others_lead_to_one(
    first: Part | None, rest: tuple[Part | None, ...]
) -> None:
    parts = tuple(part for part in (first, *rest) if part is not None)
    if not parts:
        return
    codec = Codec(parts)
    said = len(parts) > 1 and parts[-1] == Part("fp16")
    if said:
        with pytest.raises(ConfigError, match=re.escape(Codec(parts[:-1]).name)):
            parse_codec(codec.name)
    else:
        assert parse_codec(codec.name) == codec
    if len(parts) > 1:
        with pytest.raises(ConfigError, match=re.escape(Codec(parts[:-1] if said else parts).name)):
            parse_codec(Codec(parts[::-1]).name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("stored-int9", "stored-int8"),
        ("stored-f16", "stored-fp16"),
        ("stored-topp7", "stored-top7"),
        ("stored-tpo5", "stored-top5"),
        ("stored-prune10", "stored-pruned10"),
        ("stored-pruend10+itn8", "stored-pruned10+int8"),
        ("stored-qv256", "stored-vq256"),
        ("stored-gaus16", "stored-gauss16"),
        ("top12", "stored-top12"),
        ("stored-int8+pruned10", "stored-pruned10+int8"),
        ("stored-top5+top6", "stored-top5"),
        ("stored-vq256+fp16", "stored-vq256"),
        ("stored-pruned10+fp16", "stored-pruned10"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"did you mean {nearest!r}?")):
        parse_codec(name)


@pytest.mark.parametrize(
    "name", ["", "stored-", "stored-+", "zzz", "stored-top0", "stored-top05", "stored-top"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"got {name!r}")):
        parse_codec(name)


@pytest.mark.parametrize(
    "name", ["stored-pruned1", "stored-vq1", "stored-vq32769", "stored-pq2x1", "stored-pq1x9"]
)
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"numbers from 2 to"):
        parse_codec(name)


def test_a_random_codebook_has_at_most_sixteen_bits() -> None:
    assert parse_codec("stored-gauss1").encoding == (Part("gauss", (1,)),)
    with pytest.raises(ConfigError, match=r"numbers from 1 to 16 in 'gauss'"):
        parse_codec("stored-gauss17")


def test_suggestions_come_from_the_known_names_too() -> None:
    assert suggest("genrator", ("generator", "hard")) == "generator"
    assert suggest("stored", ()) is None


@pytest.mark.parametrize(("epochs", "kept"), [(1, 1), (10, 1), (11, 2), (300, 30)])
def test_pruning_keeps_the_first_of_n_epochs_rounded_up(epochs: int, kept: int) -> None:
    assert parse_codec("stored-pruned10").kept_epochs(epochs) == kept
    assert parse_codec("stored-int8").kept_epochs(epochs) == epochs


@pytest.mark.parametrize(
    ("name", "title", "short"),
    [
        ("stored-fp16", "all labels stored, fp16", "stored, fp16"),
        ("stored-int8", "all labels stored, int8", "stored, int8"),
        ("stored-top5", "all labels stored, top 5, fp16", "stored, top 5, fp16"),
        ("stored-pruned10", "labels of one epoch in 10 stored, fp16", "stored, 1 in 10, fp16"),
        ("stored-pruned10+int8", "labels of one epoch in 10 stored, int8", "stored, 1 in 10, int8"),
        ("stored-vq256", "all labels stored, codebook of 256", "stored, vq 256"),
        ("stored-pq2x16", "all labels stored, 2 codebooks of 16", "stored, pq 2 x 16"),
        ("stored-gauss16", "all labels stored, random codebook of 16 bits", "stored, random 16 bits"),
    ],
)
def test_titles_say_what_is_stored(name: str, title: str, short: str) -> None:
    assert (parse_codec(name).title, parse_codec(name).short) == (title, short)


def test_codecs_that_do_not_fit_the_classes_are_named_together() -> None:
    require_codecs(["generator", "hard", "stored-top9", "stored-pq10x4"], 10)
    with pytest.raises(ConfigError, match=r"stored-top10 keeps .*; stored-pq11x4 cuts 10 classes into 11"):
        require_codecs(["generator", "stored-top10", "stored-pq11x4"], 10)
    require_codecs(["stored-gauss16"], 128)
    with pytest.raises(ConfigError, match=r"stored-gauss16 has one index for 129 classes, of 128 at most"):
        require_codecs(["stored-gauss16"], 129)
