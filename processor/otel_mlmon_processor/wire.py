"""OTLP metrics, parsed as far as they must be.

Protobuf's parser makes an object of every number and attribute that is looked at, which costs more than all the rest
of taking in a point. So the same bytes are read with OTLP's own schema in which some fields are plain bytes: packed
numbers, attributes, resources and scopes. That is the same encoding: a packed field and a message are bytes with a
length.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.metrics.v1 import metrics_pb2

_PACKAGE: Final = "otel_mlmon.wire"
_LISTS: Final = frozenset({"attributes", "exemplars"})  # become lists of bytes
_BYTES: Final = frozenset(
    {
        ("HistogramDataPoint", "bucket_counts"),
        ("HistogramDataPoint", "explicit_bounds"),
        ("ResourceMetrics", "resource"),
        ("ScopeMetrics", "scope"),
    }
)


def _make_request() -> Any:
    proto = FileDescriptorProto()
    metrics_pb2.DESCRIPTOR.CopyToProto(proto)
    theirs = f".{proto.package}."
    proto.name, proto.package = "otel_mlmon/wire.proto", _PACKAGE
    proto.ClearField("options")
    for message in proto.message_type:
        for field in message.field:
            if field.name in _LISTS or (message.name, field.name) in _BYTES:
                field.type = FieldDescriptorProto.TYPE_BYTES
                field.ClearField("type_name")
                field.ClearField("options")
                if field.name not in _LISTS:
                    field.label = FieldDescriptorProto.LABEL_OPTIONAL
            elif field.type_name.startswith(theirs):
                field.type_name = f".{_PACKAGE}.{field.type_name.removeprefix(theirs)}"
    pool = Default()
    pool.AddSerializedFile(proto.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.MetricsData"))


# The body of an ExportMetricsServiceRequest: of one field, as MetricsData is.
MetricsRequest: Final = _make_request()
