"""The protobuf wire format (protobuf.dev/programming-guides/encoding), read strictly and written plainly.

Rules of this module:

- What a schema does not list is an error: an unknown field, another wire type, a group. So is everything that two
  readers could read differently: a field that comes twice, a map's key that does, two members of a oneof, a number in
  more bytes than it needs, text that is not UTF-8, bytes that are left over.
- What was read is written anew: fields in the order of their numbers, and nothing that was not understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Kind = Literal["text", "bytes", "flag", "number", "message"]
Single: TypeAlias = "str | bytes | bool | int | Message"
Value: TypeAlias = "Single | tuple[Single, ...] | Mapping[str, Single]"

_VARINT, _LENGTH = 0, 2
_LONGEST_VARINT = 10
_DEEPEST = 16
# In one message. A field of three bytes costs a hundred times that in memory.
_MOST_FIELDS = 10_000


class ProtobufError(ValueError):
    """These bytes are no message of that schema; the text says why, without any value of the message."""


@dataclass(frozen=True)
class Field:
    """One field of a schema. ``schema`` is that of a message; ``many`` is *repeated*; ``key`` makes it a map.

    A map is text to one kind: ``Field("attrs", "text", key=True)`` is ``map<string, string>``.
    """

    name: str
    kind: Kind
    schema: Schema | None = None
    many: bool = False
    key: bool = False


@dataclass(frozen=True)
class Schema:
    """The fields of a message by their numbers. Of the names in ``one_of``, a message has at most one."""

    name: str
    fields: Mapping[int, Field] = field(default_factory=dict)
    one_of: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Message:
    """A message that was understood. What was not sent has its default: empty, zero, false, no message."""

    schema: Schema
    values: Mapping[str, Value]

    def text(self, name: str) -> str:
        value = self.values.get(name, "")
        assert isinstance(value, str)
        return value

    def number(self, name: str) -> int:
        value = self.values.get(name, 0)
        assert isinstance(value, int)
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name, False)
        assert isinstance(value, bool)
        return value

    def message(self, name: str) -> Message | None:
        value = self.values.get(name)
        assert value is None or isinstance(value, Message)
        return value

    def messages(self, name: str) -> tuple[Message, ...]:
        value = self.values.get(name, ())
        assert isinstance(value, tuple)
        return tuple(item for item in value if isinstance(item, Message))

    def texts(self, name: str) -> dict[str, str]:
        """A map of texts."""
        value = self.values.get(name, {})
        assert isinstance(value, Mapping)
        return {key: item for key, item in value.items() if isinstance(item, str)}

    def blobs(self, name: str) -> dict[str, bytes]:
        """A map of bytes."""
        value = self.values.get(name, {})
        assert isinstance(value, Mapping)
        return {key: item for key, item in value.items() if isinstance(item, bytes)}

    def has(self, name: str) -> bool:
        """Whether it was sent at all; a repeated field or a map: whether it has anything in it."""
        return name in self.values

    def set(self, **values: Value) -> Message:
        """The same message with other values."""
        return replace(self, values={**self.values, **values})


def parse(schema: Schema, data: bytes) -> Message:
    """The message in ``data``. Raises ``ProtobufError`` for everything that is not plainly one.

    >>> parse(Schema("Status", {1: Field("Ref", "text")}), b"\\x0a\\x02ab").text("Ref")
    'ab'
    """
    return _message(schema, data, 0)


def encode(message: Message) -> bytes:
    """The bytes of a message; ``parse`` gives the same message back."""
    written = bytearray()
    for number, spec in sorted(message.schema.fields.items()):
        value = message.values.get(spec.name)
        if value is None:
            continue
        if isinstance(value, Mapping):
            for key, item in value.items():
                entry = _encoded(1, key) + _encoded(2, item)
                written += _varint(number << 3 | _LENGTH) + _varint(len(entry)) + entry
        else:
            for item in value if isinstance(value, tuple) else (value,):
                written += _encoded(number, item)
    return bytes(written)


def _encoded(number: int, value: Single) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(int(value))
    data = encode(value) if isinstance(value, Message) else value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _LENGTH) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _message(schema: Schema, data: bytes, depth: int) -> Message:
    if depth > _DEEPEST:
        raise ProtobufError(f"{schema.name} is nested more than {_DEEPEST} deep")
    single: dict[str, Single] = {}
    lists: dict[str, list[Single]] = {}
    maps: dict[str, dict[str, Single]] = {}
    for number, wire in _wire_fields(schema.name, data):
        spec = schema.fields.get(number)
        if spec is None:
            raise ProtobufError(f"{schema.name} has the field {number}, which is not known")
        name = f"{schema.name}.{spec.name}"
        if spec.key:
            key, value = _entry(name, spec, wire, depth)
            if key in maps.setdefault(spec.name, {}):
                raise ProtobufError(f"{name} has a key twice")
            maps[spec.name][key] = value
        elif spec.many:
            lists.setdefault(spec.name, []).append(_value(name, spec, wire, depth))
        elif spec.name in single:
            raise ProtobufError(f"{name} comes twice")
        else:
            single[spec.name] = _value(name, spec, wire, depth)
    if len(schema.one_of & single.keys()) > 1:
        raise ProtobufError(f"{schema.name} has more than one of {', '.join(sorted(schema.one_of))}")
    return Message(schema, {**single, **{name: tuple(items) for name, items in lists.items()}, **maps})


_KEY = Field("key", "text")


def _entry(name: str, spec: Field, wire: int | bytes, depth: int) -> tuple[str, Single]:
    if not isinstance(wire, bytes):
        raise ProtobufError(f"{name} has another type on the wire")
    entry = Schema(name, {1: _KEY, 2: Field("value", spec.kind, spec.schema)})
    values = _message(entry, wire, depth + 1).values
    # Decoders differ in what an entry without its value is; encoders always write both.
    if values.keys() != {"key", "value"}:
        raise ProtobufError(f"{name} has an entry without a key or a value")
    key, value = values["key"], values["value"]
    assert isinstance(key, str)
    assert not isinstance(value, tuple | Mapping)
    return key, value


def _value(name: str, spec: Field, wire: int | bytes, depth: int) -> Single:
    if isinstance(wire, int) != (spec.kind in ("flag", "number")):
        raise ProtobufError(f"{name} has another type on the wire")
    if isinstance(wire, int):
        if spec.kind == "number":
            return wire
        if wire > 1:
            raise ProtobufError(f"{name} is neither true nor false")
        return bool(wire)
    if spec.kind == "bytes":
        return wire
    if spec.kind == "message":
        assert spec.schema is not None
        return _message(spec.schema, wire, depth + 1)
    try:
        return wire.decode()
    except UnicodeDecodeError as error:
        raise ProtobufError(f"{name} is not UTF-8") from error


def _wire_fields(name: str, data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = count = 0
    while at < len(data):
        count += 1
        if count > _MOST_FIELDS:
            raise ProtobufError(f"{name} has more than {_MOST_FIELDS} fields")
        tag, at = _read_varint(name, data, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ProtobufError(f"{name} has a field with a number that can't be")
        value, at = _read_varint(name, data, at) if wire_type in (_VARINT, _LENGTH) else (0, at)
        if wire_type == _VARINT:
            yield number, value
        elif wire_type == _LENGTH:
            if value > len(data) - at:
                raise ProtobufError(f"{name} ends in the middle of a field")
            yield number, data[at : at + value]
            at += value
        else:
            raise ProtobufError(f"{name} has a field of wire type {wire_type}, which none of its fields has")


def _read_varint(name: str, data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        if at + index >= len(data):
            raise ProtobufError(f"{name} ends in the middle of a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if (index and not byte) or value >= 1 << 64:
                break
            return value, at + index + 1
    raise ProtobufError(f"{name} has a number that is longer than it needs to be")
