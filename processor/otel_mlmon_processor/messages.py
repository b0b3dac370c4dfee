"""How many messages a request holds, before an object is made of any.

Two bytes on the wire are a message, which takes a hundred times as much once it is parsed. So a request is first read
with OTLP's own schema in which no message is repeated: those that come after the first are merged into it, which takes
no memory however many there are. What the merged request is shorter by are their tags and lengths, of at least two
bytes each.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_mlmon import semconv

MOST_MESSAGES: Final = 3 << 19  # of a request: one in ten bytes of the largest, where honest ones have one in fifteen
_LEAST_BYTES: Final = 2  # tag and length


def has_too_many(signal: str, body: bytes) -> bool:
    """Whether a request of a signal holds more than MOST_MESSAGES, or rather more bytes of tags and lengths than these
    have at least. What is damaged has not: that is for the parser to say.
    """
    if len(body) <= _LEAST_BYTES * MOST_MESSAGES:  # as all usual ones
        return False
    try:
        merged = _MERGED[signal].FromString(body)
    except DecodeError:
        return False
    return bool(len(body) - merged.ByteSize() > _LEAST_BYTES * MOST_MESSAGES)


def _make_merged(kind: Any) -> Any:
    """The class of messages whose fields are OTLP's, each at most once: messages, and what is repeated else (of which
    the last one stays, so that all but it count in full). All other fields are unknown to it, and kept as they are.
    """
    pool = DescriptorPool()
    _add(kind.DESCRIPTOR.file, pool)
    return GetMessageClass(pool.FindMessageTypeByName(kind.DESCRIPTOR.full_name))


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add(dependency, pool)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    proto.ClearField("service")
    for message in [*proto.message_type, *(nested for outer in proto.message_type for nested in outer.nested_type)]:
        for field in list(message.field):
            text = field.type in (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES)
            if field.type == FieldDescriptorProto.TYPE_MESSAGE or (text and field.label == field.LABEL_REPEATED):
                field.label = field.LABEL_OPTIONAL
                field.ClearField("oneof_index")  # or one of another kind would replace it
            else:
                message.field.remove(field)
        message.ClearField("oneof_decl")
    pool.AddSerializedFile(proto.SerializeToString())


_MERGED: Final = {
    semconv.MonSignal.METRICS: _make_merged(ExportMetricsServiceRequest),
    semconv.MonSignal.LOGS: _make_merged(ExportLogsServiceRequest),
    semconv.MonSignal.TRACES: _make_merged(ExportTraceServiceRequest),
}
