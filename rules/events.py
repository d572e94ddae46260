"""The records that the guard reads, as pydantic models: the wire contract's inputs and nothing else.

:func:`read_event` turns the bytes of one record into a model or an :class:`~rules.errors.InputError` that carries the contract's
error code and the path of the field. Instants become integers of microseconds and dates become day ordinals (``rules.instants``), so
that nothing behind the door parses again. Numbers and truth values are never read from text; unknown fields are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import jiter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from rules import e164
from rules.countries import COUNTRIES
from rules.e164 import is_e164
from rules.errors import InputError
from rules.instants import DAY_PATTERN, INSTANT_PATTERN, parse_day, parse_instant
from rules.requests import (
    MAX_REQUEST_ID_CHARS,
    MAX_TEXT_CHARS,
    CallRequest,
    Cli,
    DiallingMode,
    Promotion,
    Purpose,
    read_quickly,
)

#: A record's value above this many bytes is rejected unread (``too_large``); rejected-events cuts what it keeps at the same size.
MAX_RECORD_BYTES = 512 * 1024


def _number(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("type", "want a number as text, in E.164 form like +31612345678")
    if not is_e164(value):
        raise PydanticCustomError("format", "want E.164 like +31612345678: a plus sign and 7 to 15 digits, the first not 0")
    return value


def _instant(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError("type", "want an instant as text, like 2026-11-23T13:00:00Z")
    try:
        return parse_instant(value)
    except ValueError as error:
        raise PydanticCustomError("format", "{reason}", {"reason": str(error)}) from None


def _day(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError("type", "want a date as text, like 2026-11-23")
    try:
        return parse_day(value)
    except ValueError as error:
        raise PydanticCustomError("format", "{reason}", {"reason": str(error)}) from None


def _country(value: str) -> str:
    if value not in COUNTRIES:
        raise PydanticCustomError("enum", "want an ISO 3166 alpha-2 country code, like NL")
    return value


def _written(pattern: str, **more: str) -> WithJsonSchema:
    """How a JSON Schema tells of a text that is read into something else."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", **more})


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Number = Annotated[str, BeforeValidator(_number), _written(e164.PATTERN)]
Instant = Annotated[int, BeforeValidator(_instant), _written(INSTANT_PATTERN, format="date-time")]
Day = Annotated[int, BeforeValidator(_day), _written(DAY_PATTERN, format="date")]
Country = Annotated[Text, AfterValidator(_country), WithJsonSchema({"enum": sorted(COUNTRIES)})]
# Bounded, because the state packs integers into 64 bits and counts months with calendar dates.
Count = Annotated[int, Field(ge=0, le=100_000)]

LegalForm = Literal[
    "natural_person",
    "sole_trader",
    "general_partnership",
    "professional_partnership",
    "limited_partnership",
    "private_company",
    "public_company",
    "foundation",
    "association",
    "cooperative",
    "unknown",
]
RelationshipKind = Literal[
    "purchase",
    "contract",
    "subscription",
    "lottery_participation",
    "donation",
    "volunteering",
    "event_attendance",
    "petition",
    "quote",
    "trial",
    "account",
    "newsletter",
]
CallResult = Literal["connected", "no_answer", "busy", "not_interested", "abandoned", "silent", "objected"]


class Record(BaseModel):
    """Base of all records: strict types, unknown fields ignored, and instances that nobody changes."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class CliEvent(Record):
    """The caller number shown; ``number`` may be absent only when ``withheld``."""

    number: Number | None = None
    withheld: bool


class CallRequestEvent(Record):  # type: ignore[no-redef]  # the plugin takes an alias for a second field of the name
    """A dialler's question, as it is written; the rules look at :meth:`request`."""

    request_id: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID_CHARS)]
    number: Number
    dial_at: Instant
    # Decisions echo it as it was asked: a second reading of the same field.
    dial_at_text: SkipJsonSchema[str] = Field(validation_alias="dial_at", exclude=True, repr=False)
    advertiser_id: Text
    intermediary_id: Text | None = None
    call_centre_id: Text | None = None
    campaign_id: Text
    purpose: Purpose
    promotion: Promotion | None = None
    service_necessary: bool | None = None
    subject: Text | None = None
    own_offer: bool | None = None
    dialling_mode: DiallingMode
    cli: CliEvent
    person_ref: Text | None = None
    scrubbed_on: Day | None = None

    def request(self) -> CallRequest:
        """The same as the rules look at it."""
        return CallRequest(**self.__dict__ | {"cli": Cli(self.cli.number, self.cli.withheld)})


class Fact(Record):
    """What every fact about a number carries."""

    event_id: Text
    number: Number
    at: Instant


class Evidence(Record):
    """Proof kept elsewhere; only complete with both parts."""

    uri: Text | None = None
    sha256: Text | None = None


#: What a consent that is given has to name.
_TERMS = ("party_ids", "subjects", "channels", "capture")


class ConsentEvent(Fact):
    """A consent given or withdrawn."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"kind": {"const": "given"}}},
            "then": {"required": list(_TERMS), "properties": {name: {"not": {"type": "null"}} for name in _TERMS}},
        }
    )

    kind: Literal["given", "withdrawn"]
    party_ids: list[Text] | None = None
    subjects: list[Text] | None = None
    channels: list[Literal["telephone", "email", "sms", "post"]] | None = None
    capture: (
        Literal[
            "unticked_box",
            "spoken",
            "written",
            "preticked_box",
            "combined_tick",
            "bundled_clause",
            "terms",
            "purchased_list",
        ]
        | None
    ) = None
    evidence: Evidence | None = None
    person_ref: Text | None = None
    verified_by: Literal["sms", "email", "app", "call", "in_person"] | None = None
    first_contact_within_months: Count | None = None
    valid_until: Day | None = None
    giver_age: Count | None = None

    @model_validator(mode="after")
    def _given_names_its_terms(self) -> ConsentEvent:
        if self.kind == "given":
            for name in _TERMS:
                if getattr(self, name) is None:
                    raise PydanticCustomError("missing_in", "required of a consent that is given", {"field": name})
        return self


class ObjectionEvent(Fact):
    """An objection: whoever it names may not call this number again."""

    advertiser_id: Text | None = None
    intermediary_id: Text | None = None
    call_centre_id: Text | None = None
    scope: Literal["called_for", "whole_call_centre"] | None = None
    subject: Text | None = None
    channel: Literal["call", "ivr", "web", "email", "letter", "other"] | None = None
    evidence: Evidence | None = None


class RelationshipEvent(Fact):
    """A version of what ties a person to an organisation."""

    relationship_id: Text
    advertiser_id: Text
    kind: RelationshipKind | None = None
    paid: bool | None = None
    number_given_in_sale: bool | None = None
    started_on: Day | None = None
    ended_on: Day | None = None
    collected_on: Day | None = None
    informed: bool | None = None
    optout_offered: Literal["preticked_call_me", "unticked_do_not_call", "spoken", "written", "terms_only", "none"] | None = None
    optout_used: bool | None = None
    subjects: list[Text] | None = None
    rationale: Text | None = None


class InvitationEvent(Fact):
    """A person asks to be called."""

    party_id: Text | None = None
    subject: Text | None = None
    origin: Literal["own_initiative", "survey", "prize_draw"] | None = None
    capture: Literal["unticked_box", "preticked_box", "spoken", "written", "terms"] | None = None
    agreed_at: Instant | None = None


class PublishedNumber(Record):
    """A number that its user published to be called with offers."""

    uri: Text | None = None
    at: Instant | None = None
    subjects: list[Text] | None = None


class CalleeEvent(Fact):
    """Who uses the number now."""

    legal_form: LegalForm | None = None
    person_ref: Text | None = None
    age: Count | None = None
    age_suspected_minor: bool | None = None
    published_for_marketing: PublishedNumber | None = None
    country: Country | None = None
    local_rules_met: bool | None = None
    deceased: bool | None = None
    do_not_call_registered_on: Day | None = None


class CallOutcomeEvent(Fact):
    """How a call ended."""

    advertiser_id: Text
    campaign_id: Text
    result: CallResult
    intermediary_id: Text | None = None
    call_centre_id: Text | None = None
    request_id: Text | None = None


class QuarantineRelease(Fact):
    """An operator has repaired what suspended the number."""

    released_by: Text
    reason: Text


class BalanceTest(Record):
    """A written balancing of interests that fixes a customer term."""

    dated: Day
    term_months: Count | None = None


class TermExtension(Record):
    """The committee's advice on a longer term; ``months`` is absent while it is pending."""

    advised_on: Day
    months: Count | None = None


class Party(Record):
    """An organisation that calls or is called for."""

    party_id: Text
    name: Text | None = None
    legal_form: LegalForm | None = None
    brand: Text | None = None
    kinds: list[Literal["ideal_or_charitable", "periodical_publisher", "lottery_licensee"]] | None = None
    issues_per_year: Count | None = None
    wok_article: Text | None = None
    ddma_member: bool | None = None
    country: Country | None = None
    balance_tests: list[BalanceTest] | None = None
    term_extensions: list[TermExtension] | None = None
    engages: list[Text] | None = None


class Campaign(Record):
    """A calling campaign of one advertiser."""

    campaign_id: Text
    advertiser_id: Text | None = None
    intermediary_id: Text | None = None
    subject: Text | None = None
    objection_offered: bool | None = None
    script_ref: Text | None = None
    abandoned_share_24h: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


class CallerNumber(Record):
    """A number that callers show."""

    number: Number
    owner_id: Text | None = None
    callable_back: bool | None = None
    tariff: Literal["normal", "free", "premium"] | None = None
    published_by: list[Text] | None = None
    in_use_until: Day | None = None


NumberEvent = ConsentEvent | ObjectionEvent | RelationshipEvent | InvitationEvent | CalleeEvent | CallOutcomeEvent | QuarantineRelease
ReferenceEntry = Party | Campaign | CallerNumber

REQUEST_TOPIC = "call-requests"

#: Topics of facts, keyed by number.
FACT_MODELS: dict[str, type[NumberEvent]] = {
    "consents": ConsentEvent,
    "objections": ObjectionEvent,
    "relationships": RelationshipEvent,
    "invitations": InvitationEvent,
    "callees": CalleeEvent,
    "call-outcomes": CallOutcomeEvent,
    "quarantine-releases": QuarantineRelease,
}

#: Topics of reference entries, keyed by id and compacted, with the field that is their key.
REFERENCE_MODELS: dict[str, type[ReferenceEntry]] = {
    "parties": Party,
    "campaigns": Campaign,
    "caller-numbers": CallerNumber,
}
REFERENCE_KEYS = {"parties": "party_id", "campaigns": "campaign_id", "caller-numbers": "number"}

#: Every input topic's model.
MODELS: dict[str, type[Record]] = {REQUEST_TOPIC: CallRequestEvent, **FACT_MODELS, **REFERENCE_MODELS}
_KEY_FIELDS = {topic: REFERENCE_KEYS.get(topic, "number") for topic in MODELS}
_KNOWN_FIELDS = {topic: frozenset(model.model_fields) for topic, model in MODELS.items()}

#: Every code that a record may be rejected with.
ERROR_CODES = ("json", "type", "missing", "format", "enum", "key_mismatch", "null_value", "too_large", "conflict")
# pydantic's error types by the contract's error code; whatever is not listed is a wrong type.
_CODES = {
    "missing": "missing",
    "missing_in": "missing",
    "literal_error": "enum",
    "enum": "enum",
    "format": "format",
    "string_too_short": "format",
    "greater_than_equal": "format",
    "less_than_equal": "format",
    "finite_number": "format",
}


def parse_json(raw: bytes) -> Any:  # JSON is any value
    """Parse JSON strictly: UTF-8, no duplicate keys, no NaN or Infinity, at most 200 levels deep.

    Raises:
        InputError: code ``json``; the message says where and never quotes the text.
    """
    try:
        return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Detected duplicate key"):
            reason = "duplicate key" + reason[reason.rindex('"') + 1 :]
        raise InputError("json", "", f"no valid JSON: {reason}") from None


def validate(topic: str, value: object) -> Record | CallRequest:
    """Make the record of a topic from a parsed JSON value.

    Raises:
        InputError: with the contract's code and the path of the first field that is wrong.
    """
    if not isinstance(value, dict):
        raise InputError("type", "", "want a JSON object")
    try:
        record = MODELS[topic].model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)[0]
        raise InputError(_code(details), _path(details), _message(details)) from None
    return record.request() if isinstance(record, CallRequestEvent) else record


def read_event(topic: str, key: bytes | None, raw: bytes | None) -> tuple[Record | CallRequest, int]:
    """Read one record of an input topic.

    Args:
        topic: name without prefix; one of the contract's input topics.
        key: the record's key.
        raw: the record's value; a null, which removes an entry of a reference topic, is the caller's to handle there.

    Returns:
        The record and the number of unknown top-level fields in it.

    Raises:
        InputError: code ``null_value``, ``too_large``, ``json``, ``type``, ``missing``, ``format``, ``enum`` or ``key_mismatch``.
    """
    if raw is None:
        raise InputError("null_value", "", "a null means nothing on a topic keyed by number")
    if len(raw) > MAX_RECORD_BYTES:
        raise InputError("too_large", "", f"{len(raw)} bytes; at most {MAX_RECORD_BYTES} are read")
    if topic == REQUEST_TOPIC:
        request = read_quickly(raw)
        if request is not None and request.number.encode() == key:
            return request, 0
    value = parse_json(raw)
    record = validate(topic, value)
    check_key(topic, record, key)
    return record, len(value.keys() - _KNOWN_FIELDS[topic])


def check_key(topic: str, record: Record | CallRequest, key: bytes | None) -> None:
    """Refuse a record whose key is not the number, or the id, that it carries.

    Raises:
        InputError: code ``key_mismatch``.
    """
    field = _KEY_FIELDS[topic]
    if key is None or key != cast("str", getattr(record, field)).encode():
        raise InputError("key_mismatch", field, "the record's key and this field disagree")


def _code(details: ErrorDetails) -> str:
    if details["type"] == "string_too_long":
        # request_id has a length in the contract; any other text is only kept from growing without bound.
        return "format" if details["loc"] == ("request_id",) else "too_large"
    if details["input"] is None and isinstance(details["loc"][-1], str):
        return "missing"  # a null says as little as leaving the field out
    return _CODES.get(details["type"], "type")


def _path(details: ErrorDetails) -> str:
    path = ".".join(str(part) for part in details["loc"])
    return details["ctx"]["field"] if details["type"] == "missing_in" else path


def _message(details: ErrorDetails) -> str:
    if _code(details) == "missing":
        return "required"
    # pydantic's messages describe the shape that was wanted; none of the types used here quotes the input.
    return details["msg"]
