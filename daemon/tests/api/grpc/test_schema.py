"""Our table of gRPC messages says what the official service definition says."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")

from edgeaid.api.grpc.schema import MESSAGES  # noqa: E402  needs protobuf

#: Enumerations of the official definition that ours declares as their wire type.
ENUM, INT32 = 14, 5
#: Fields of the Open Inference Protocol that Triton's service, which the client library ships, does not have.
PROTOCOL_ONLY = {"ModelMetadataResponse": {"properties"}}


def official(name: str) -> Any:
    """The official descriptor of a message, whose nested ones are named with dots."""
    outer, *inner = name.split(".")
    file = service_pb2.DESCRIPTOR
    for candidate in (file, *file.dependencies):
        if outer in candidate.message_types_by_name:
            descriptor = candidate.message_types_by_name[outer]
            for part in inner:
                descriptor = descriptor.nested_types_by_name[part]
            return descriptor
    return None


def described(field: Any) -> tuple[int, int, bool, str]:
    """Number, wire type, whether repeated, and the name of the message it holds."""
    kind = INT32 if field.type == ENUM else field.type
    holds = field.message_type.name if field.message_type is not None else ""
    return field.number, kind, field.is_repeated, holds


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_field_has_the_official_number_and_type(name: str) -> None:
    theirs = official(name)
    assert theirs is not None, f"{name} is not in the official definition"
    ours = MESSAGES[name].DESCRIPTOR
    expected = {field.name: described(field) for field in theirs.fields}
    declared = {f.name: described(f) for f in ours.fields if f.name not in PROTOCOL_ONLY.get(name, set())}
    assert declared.items() <= expected.items()
    assert {o.name for o in ours.oneofs} <= {o.name for o in theirs.oneofs} | {"choice"}
