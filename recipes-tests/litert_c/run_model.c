/* A user's program against libLiteRt: runs a model with one input and one output once, its input from stdin as it is,
 * and prints the bytes of the answer, one a line. Usage: run_model MODEL < INPUT */
#include <stdio.h>

#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"
#include "litert/c/litert_tensor_buffer_requirements.h"

#define NEED(call)                                        \
  do {                                                    \
    LiteRtStatus status = (call);                         \
    if (status != kLiteRtStatusOk) {                      \
      fprintf(stderr, "%s: status %d\n", #call, status);  \
      return 1;                                           \
    }                                                     \
  } while (0)

static int make_buffer(LiteRtEnvironment environment, LiteRtTensor tensor, LiteRtTensorBufferRequirements requirements,
                       LiteRtTensorBuffer* buffer, size_t* size) {
  LiteRtRankedTensorType type;
  NEED(LiteRtGetRankedTensorType(tensor, &type));
  NEED(LiteRtGetTensorBufferRequirementsBufferSize(requirements, size));
  NEED(LiteRtCreateManagedTensorBuffer(environment, kLiteRtTensorBufferTypeHostMemory, &type, *size, buffer));
  return 0;
}

int main(int argc, char** argv) {
  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  LiteRtSignature signature;
  LiteRtTensor tensors[2];
  LiteRtTensorBufferRequirements requirements[2];
  LiteRtTensorBuffer buffers[2];
  size_t sizes[2];
  void* memory;

  if (argc != 2) return 2;
  NEED(LiteRtCreateEnvironment(0, NULL, &environment));
  NEED(LiteRtCreateModelFromFile(environment, argv[1], &model));
  NEED(LiteRtCreateOptions(&options));
  NEED(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu));
  NEED(LiteRtCreateCompiledModel(environment, model, options, &compiled));
  NEED(LiteRtGetModelSignature(model, 0, &signature));
  NEED(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensors[0]));
  NEED(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensors[1]));
  NEED(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &requirements[0]));
  NEED(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &requirements[1]));
  for (int i = 0; i < 2; i++)
    if (make_buffer(environment, tensors[i], requirements[i], &buffers[i], &sizes[i])) return 1;

  NEED(LiteRtLockTensorBuffer(buffers[0], &memory, kLiteRtTensorBufferLockModeWrite));
  size_t got = fread(memory, 1, sizes[0], stdin);
  NEED(LiteRtUnlockTensorBuffer(buffers[0]));
  NEED(LiteRtRunCompiledModel(compiled, 0, 1, &buffers[0], 1, &buffers[1]));
  NEED(LiteRtLockTensorBuffer(buffers[1], &memory, kLiteRtTensorBufferLockModeRead));
  fprintf(stderr, "%zu of %zu bytes in, %zu out\n", got, sizes[0], sizes[1]);
  for (size_t i = 0; i < sizes[1]; i++) printf("%d\n", ((unsigned char*)memory)[i]);
  NEED(LiteRtUnlockTensorBuffer(buffers[1]));
  return 0;
}
