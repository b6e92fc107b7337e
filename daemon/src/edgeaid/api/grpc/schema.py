"""Messages of `inference.GRPCInferenceService`, built at run time from the table below.

The field numbers are those of the Open Inference Protocol's and Triton's service (one superset, docs/protocol.md).
Built here rather than generated, so that one source fits every protobuf runtime from 4.25 on: generated code is tied to
its own.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "inference"

#: `Message: field=number type[*]`; `<K,V>` = map, `|` joins the members of a oneof, a dot names a nested message.
SCHEMA: Final = """
ServerLiveRequest:
ServerLiveResponse: live=1 bool
ServerReadyRequest:
ServerReadyResponse: ready=1 bool
ModelReadyRequest: name=1 string, version=2 string
ModelReadyResponse: ready=1 bool
ServerMetadataRequest:
ServerMetadataResponse: name=1 string, version=2 string, extensions=3 string*
ModelMetadataRequest: name=1 string, version=2 string
ModelMetadataResponse.TensorMetadata: name=1 string, datatype=2 string, shape=3 int64*
ModelMetadataResponse: name=1 string, versions=2 string*, platform=3 string, inputs=4 .TensorMetadata*, outputs=5 .TensorMetadata*, properties=6 <string,string>
InferParameter: bool_param=1 bool | int64_param=2 int64 | string_param=3 string | double_param=4 double | uint64_param=5 uint64
InferTensorContents: bool_contents=1 bool*, int_contents=2 int32*, int64_contents=3 int64*, uint_contents=4 uint32*, uint64_contents=5 uint64*, fp32_contents=6 float*, fp64_contents=7 double*, bytes_contents=8 bytes*
ModelInferRequest.InferInputTensor: name=1 string, datatype=2 string, shape=3 int64*, parameters=4 <string,InferParameter>, contents=5 InferTensorContents
ModelInferRequest.InferRequestedOutputTensor: name=1 string, parameters=2 <string,InferParameter>
ModelInferRequest: model_name=1 string, model_version=2 string, id=3 string, parameters=4 <string,InferParameter>, inputs=5 .InferInputTensor*, outputs=6 .InferRequestedOutputTensor*, raw_input_contents=7 bytes*
ModelInferResponse.InferOutputTensor: name=1 string, datatype=2 string, shape=3 int64*, parameters=4 <string,InferParameter>, contents=5 InferTensorContents
ModelInferResponse: model_name=1 string, model_version=2 string, id=3 string, parameters=4 <string,InferParameter>, outputs=5 .InferOutputTensor*, raw_output_contents=6 bytes*
ModelStreamInferResponse: error_message=1 string, infer_response=2 ModelInferResponse
ModelConfigRequest: name=1 string, version=2 string
ModelVersionPolicy.Latest: num_versions=1 uint32
ModelVersionPolicy.All:
ModelVersionPolicy.Specific: versions=1 int64*
ModelVersionPolicy: latest=1 .Latest | all=2 .All | specific=3 .Specific
ModelInput: name=1 string, data_type=2 int32, format=3 int32, dims=4 int64*
ModelOutput: name=1 string, data_type=2 int32, dims=3 int64*, label_filename=4 string
ModelConfig: name=1 string, platform=2 string, version_policy=3 ModelVersionPolicy, max_batch_size=4 int32, input=5 ModelInput*, output=6 ModelOutput*, backend=17 string
ModelConfigResponse: config=1 ModelConfig
RepositoryIndexRequest: repository_name=1 string, ready=2 bool
RepositoryIndexResponse.ModelIndex: name=1 string, version=2 string, state=3 string, reason=4 string
RepositoryIndexResponse: models=1 .ModelIndex*
ModelRepositoryParameter: bool_param=1 bool | int64_param=2 int64 | string_param=3 string | bytes_param=4 bytes
RepositoryModelLoadRequest: repository_name=1 string, model_name=2 string, parameters=3 <string,ModelRepositoryParameter>
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: repository_name=1 string, model_name=2 string, parameters=3 <string,ModelRepositoryParameter>
RepositoryModelUnloadResponse:
ModelStatisticsRequest: name=1 string, version=2 string
StatisticDuration: count=1 uint64, ns=2 uint64
InferStatistics: success=1 StatisticDuration, fail=2 StatisticDuration, queue=3 StatisticDuration, compute_input=4 StatisticDuration, compute_infer=5 StatisticDuration, compute_output=6 StatisticDuration, cache_hit=7 StatisticDuration, cache_miss=8 StatisticDuration
InferBatchStatistics: batch_size=1 uint64, compute_input=2 StatisticDuration, compute_infer=3 StatisticDuration, compute_output=4 StatisticDuration
InferResponseStatistics: compute_infer=1 StatisticDuration, compute_output=2 StatisticDuration, success=3 StatisticDuration, fail=4 StatisticDuration, empty_response=5 StatisticDuration, cancel=6 StatisticDuration
MemoryUsage: type=1 string, id=2 int64, byte_size=3 uint64
ModelStatistics: name=1 string, version=2 string, last_inference=3 uint64, inference_count=4 uint64, execution_count=5 uint64, inference_stats=6 InferStatistics, batch_stats=7 InferBatchStatistics*, memory_usage=8 MemoryUsage*, response_stats=9 <string,InferResponseStatistics>
ModelStatisticsResponse: model_stats=1 ModelStatistics*
SystemSharedMemoryStatusRequest: name=1 string
SystemSharedMemoryStatusResponse.RegionStatus: name=1 string, key=2 string, offset=3 uint64, byte_size=4 uint64
SystemSharedMemoryStatusResponse: regions=1 <string,.RegionStatus>
SystemSharedMemoryRegisterRequest: name=1 string, key=2 string, offset=3 uint64, byte_size=4 uint64
SystemSharedMemoryRegisterResponse:
SystemSharedMemoryUnregisterRequest: name=1 string
SystemSharedMemoryUnregisterResponse:
CudaSharedMemoryStatusRequest: name=1 string
CudaSharedMemoryStatusResponse.RegionStatus: name=1 string, device_id=2 uint64, byte_size=3 uint64
CudaSharedMemoryStatusResponse: regions=1 <string,.RegionStatus>
CudaSharedMemoryRegisterRequest: name=1 string, raw_handle=2 bytes, device_id=3 int64, byte_size=4 uint64
CudaSharedMemoryRegisterResponse:
CudaSharedMemoryUnregisterRequest: name=1 string
CudaSharedMemoryUnregisterResponse:
TraceSettingRequest.SettingValue: value=1 string*
TraceSettingRequest: settings=1 <string,.SettingValue>, model_name=2 string
TraceSettingResponse.SettingValue: value=1 string*
TraceSettingResponse: settings=1 <string,.SettingValue>
LogSettingsRequest.SettingValue: bool_param=1 bool | uint32_param=2 uint32 | string_param=3 string
LogSettingsRequest: settings=1 <string,.SettingValue>
LogSettingsResponse.SettingValue: bool_param=1 bool | uint32_param=2 uint32 | string_param=3 string
LogSettingsResponse: settings=1 <string,.SettingValue>
"""  # noqa: E501  a table reads best with one row a message

HEALTH: Final = """
HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 int32
HealthListRequest:
HealthListResponse: statuses=1 <string,HealthCheckResponse>
"""

REFLECTION: Final = """
ExtensionRequest: containing_type=1 string, extension_number=2 int32
ServerReflectionRequest: host=1 string, file_by_filename=3 string, file_containing_symbol=4 string, file_containing_extension=5 ExtensionRequest, all_extension_numbers_of_type=6 string, list_services=7 string
FileDescriptorResponse: file_descriptor_proto=1 bytes*
ServiceResponse: name=1 string
ListServiceResponse: service=1 ServiceResponse*
ErrorResponse: error_code=1 int32, error_message=2 string
ServerReflectionResponse: valid_host=1 string, original_request=2 ServerReflectionRequest, file_descriptor_response=4 FileDescriptorResponse, list_services_response=6 ListServiceResponse, error_response=7 ErrorResponse
"""  # noqa: E501  a table reads best with one row a message

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "bool": _Field.TYPE_BOOL, "string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64, "uint32": _Field.TYPE_UINT32, "uint64": _Field.TYPE_UINT64, "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
}  # fmt: skip


def _type(field: Any, text: str, package: str, parent: str) -> None:
    if text in _TYPES:
        field.type = _TYPES[text]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{parent}{text}" if text.startswith(".") else f".{package}.{text}"


def _add_field(message: Any, text: str, package: str, path: str) -> Any:
    head, kind = text.strip().split(" ", 1)
    name, number = head.split("=")
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.startswith("<"):
        key, value = kind[1:-1].split(",")
        entry = message.nested_type.add(name="".join(p.title() for p in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _type(entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL), key, package, path)
        _type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), value, package, path)
        field.label = _Field.LABEL_REPEATED
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{path}.{entry.name}"
        return field
    if kind.endswith("*"):
        field.label = _Field.LABEL_REPEATED
        kind = kind[:-1]
    _type(field, kind, package, path)
    return field


_FILES: Final[dict[str, Any]] = {}


def file_of(package: str) -> Any:
    """The FileDescriptorProto of a package's messages."""
    return _FILES[package]


def build(schema: str, package: str) -> dict[str, Any]:
    """Message classes by name (nested ones as Outer.Inner)."""
    file = descriptor_pb2.FileDescriptorProto(name=f"edgeaid/{package}.proto", package=package, syntax="proto3")
    messages: dict[str, Any] = {}
    rows = [line.partition(":") for line in schema.strip().splitlines()]
    for name, _, _ in sorted(rows, key=lambda r: r[0].count(".")):
        outer, _, inner = name.rpartition(".")
        if outer and outer not in messages:
            messages[outer] = file.message_type.add(name=outer)
        if name not in messages:
            messages[name] = messages[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
    for name, _, fields in rows:
        message = messages[name]
        if "|" in fields:
            message.oneof_decl.add(name="parameter_choice" if "param" in fields else "choice")
            for text in fields.split("|"):
                _add_field(message, text, package, name).oneof_index = 0
        elif fields.strip():
            depth = 0
            parts = [""]
            for char in fields:
                depth += (char == "<") - (char == ">")
                if char == "," and not depth:
                    parts.append("")
                else:
                    parts[-1] += char
            for text in parts:
                _add_field(message, text, package, name)
    _FILES[package] = file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


MESSAGES: Final = build(SCHEMA, PACKAGE)
HEALTH_MESSAGES: Final = build(HEALTH, "grpc.health.v1")
REFLECTION_MESSAGES: Final = {
    package: build(REFLECTION, package) for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha")
}
