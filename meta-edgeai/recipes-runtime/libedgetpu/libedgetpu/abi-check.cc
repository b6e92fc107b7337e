// Compiled, never linked: are these the headers of a TensorFlow Lite whose delegates today's interpreters can load?
// 64 bytes (TensorFlow 2.6 and before) were measured to crash; 88 is what 2.16 to 2.21 and LiteRT 1.1 to 2.3 have.
#include "tensorflow/lite/core/c/common.h"

static_assert(sizeof(void *) != 8 || sizeof(TfLiteRegistration) == 88,
              "TfLiteRegistration has another size than the interpreters expect: choose other TensorFlow headers");
static_assert(sizeof(void *) != 8 || sizeof(TfLiteDelegate) == 56,
              "TfLiteDelegate has another size than the interpreters expect: choose other TensorFlow headers");
