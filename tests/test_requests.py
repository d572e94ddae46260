"""The quick reading of call requests gives what the contract's model gives, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.turn import _fingerprint
from rules.errors import InputError
from rules.events import MODELS, REQUEST_TOPIC, parse_json, read_event, validate
from rules.requests import CallRequest, read_quickly
from tests.harness import encode
from tests.scene import request

NUMBER = "+31612345678"
KEY = NUMBER.encode()
LONGEST = "x" * 4096

#: Per field, values in JSON: what many send, borders, and what is wrong.
VALUES: dict[str, list[str]] = {
    "request_id": ['"q-1"', '"' + "q" * 128 + '"', '"' + "q" * 129 + '"', '""', "null", "7"],
    "number": [f'"{NUMBER}"', '"+31612345679"', '"0612345678"', "null", "31612345678"],
    "dial_at": [
        '"2026-11-23T14:00:00+01:00"',
        '"2026-11-23t13:00:00.1234567z"',
        '"2026-11-23T13:00:00"',
        '"2026-02-30T13:00Z"',
        "1",
    ],
    "advertiser_id": ['"A"', '""', f'"{LONGEST}"', f'"{LONGEST}x"', '"\\u0041"', '"é"', '"a\\"b"', "null"],
    "intermediary_id": ["null", '"B"', '""', "false"],
    "call_centre_id": ["null", '"C"', '"\x01"', '"null"'],
    "campaign_id": ['"c-1"', '"\\ud800"', '"\udcff"', '"' + "é" * 4096 + '"', '"' + "é" * 4097 + '"', "[]"],
    "purpose": ['"commercial"', '"service"', '"Commercial"', "null"],
    "promotion": ["null", '"none"', '"some"'],
    "service_necessary": ["true", "null", '"true"', "1"],
    "subject": ['"energy"', '""', "null", '"a:\\"b\\""'],
    "own_offer": ["true", "false", "null", "0"],
    "dialling_mode": ['"manual"', '"automated_voice"', '"by hand"'],
    "cli": [
        '{"number":"+31880000104","withheld":false}',
        '{"withheld":true}',
        '{"number":null,"withheld":true}',
        '{"number":"+31880000104","number":null,"withheld":false}',
        '{"withheld":false,"withheld":true}',
        '{"number":"088","withheld":false}',
        '{"number":"+31880000104","withheld":false,"more":1}',
        '{"number":"+31880000104"}',
        "null",
        "[]",
    ],
    "person_ref": ['"p-1"', "null", "NaN"],
    "scrubbed_on": ["null", '"2021-06-30"', '"2021-06-31"', '""', "18000"],
    "unknown": ["1", '"x"', "null"],
}
REQUIRED = ("request_id", "number", "dial_at", "advertiser_id", "campaign_id", "purpose", "dialling_mode", "cli")
OPTIONAL = ("intermediary_id", "call_centre_id", "promotion", "service_necessary", "subject", "own_offer", "person_ref", "scrubbed_on")

FIELD = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(VALUES[name])))


def right(*names: str) -> list[tuple[str, str]]:
    return [(name, VALUES[name][0]) for name in names]


def written(fields: list[tuple[str, str]], gap: str = "") -> bytes:
    return ("{" + ",".join(f'{gap}"{name}"{gap}:{gap}{value}' for name, value in fields) + gap + "}").encode("utf-8", "surrogatepass")


def by_the_model(raw: bytes) -> CallRequest | None:
    """What the contract's model makes of a record without unknown fields; None if it refuses it, or has to count some."""
    try:
        value = parse_json(raw)
        record = validate(REQUEST_TOPIC, value)
    except InputError:
        return None
    assert isinstance(record, CallRequest)
    return record if value.keys() <= MODELS[REQUEST_TOPIC].model_fields.keys() else None


@given(
    st.sets(st.sampled_from(REQUIRED), min_size=len(REQUIRED) - 1).map(lambda names: right(*sorted(names))),
    st.lists(FIELD, max_size=4),
    st.sampled_from(["", " ", "\n", "\x00", ","]),
    st.randoms(use_true_random=False),
)
@example(right(*REQUIRED), [("intermediary_id", "null"), ("intermediary_id", '"B"')], "", None)
@example(right(*REQUIRED), [("own_offer", "true"), ("own_offer", "false")], "", None)
@example(right(*REQUIRED), [("subject", "null"), ("unknown", "1")], "", None)
def test_what_is_read_quickly_is_what_the_model_reads(base: list[Any], more: list[Any], gap: str, order: Any) -> None:
    """Whatever stands in the record, in any order, also twice: the same request, or none."""
    fields = [*base, *more]
    if order is not None:
        order.shuffle(fields)
    raw = written(fields, gap)
    quick = read_quickly(raw)
    if quick is not None:
        assert quick == by_the_model(raw)


@pytest.mark.parametrize("field", sorted(VALUES))
def test_each_value_of_each_field_is_read_as_the_model_reads_it(field: str) -> None:
    """Alone on top of a plain request, once and twice; everything after the field is cut off, and something appended."""
    for value in VALUES[field]:
        for fields in ([one for one in right(*REQUIRED, *OPTIONAL) if one[0] != field], right(*REQUIRED, *OPTIONAL)):
            whole = written([*fields, (field, value)])
            for raw in (whole, whole[:-1], whole + b"}", b"\xef\xbb\xbf" + whole, b" " + whole + b"\n"):
                quick = read_quickly(raw)
                assert quick is None or quick == by_the_model(raw), raw


@pytest.mark.parametrize(
    "fields",
    [
        right(*REQUIRED),
        right(*REQUIRED, *OPTIONAL),
        [(name, value) for name, value in right(*REQUIRED) if name != "cli"] + [("cli", VALUES["cli"][1])],
        right(*REQUIRED) + [(name, "null") for name in OPTIONAL],
        right(*REQUIRED) + [(name, VALUES[name][1]) for name in OPTIONAL],
    ],
)
def test_a_plain_request_is_read_quickly(fields: list[tuple[str, str]]) -> None:
    """With its optional fields absent, null or set; spaces do not matter."""
    for gap in ("", " "):
        quick = read_quickly(written(fields, gap))
        assert quick is not None
        assert quick == by_the_model(written(fields))


@pytest.mark.parametrize("key", [b"+31612345679", b"", b"0612345678", None])
def test_a_plain_request_under_another_key_is_refused(key: bytes | None) -> None:
    with pytest.raises(InputError, match="disagree"):
        read_event(REQUEST_TOPIC, key, written(right(*REQUIRED)))


def test_a_number_that_is_none_is_left_to_the_model() -> None:
    assert read_quickly(written(right(*REQUIRED)).replace(KEY, b"0612345678")) is None


def test_the_digest_of_a_request_stays_what_it_was() -> None:
    """Workers of two versions, and those that read back what an older one published, must know a repeat; computed by version 0.1.0."""
    plain = request(NUMBER, request_id="q-1")
    assert _fingerprint(read_event(REQUEST_TOPIC, KEY, encode(plain))[0]).hex() == "9174d84b8db0cf37"
    full = plain | {
        "intermediary_id": "B", "call_centre_id": "C", "promotion": "none", "service_necessary": False, "scrubbed_on": "2021-06-30",
        "cli": {"withheld": True}, "dial_at": "2026-11-23T14:00:00.5+01:00",
    }  # fmt: skip
    assert _fingerprint(read_event(REQUEST_TOPIC, KEY, encode(full))[0]).hex() == "add1396d7ae1084e"
