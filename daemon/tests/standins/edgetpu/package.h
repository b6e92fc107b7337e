/* Reads the custom options of an `edgetpu-custom-op`: a FlexBuffer map around flatbuffers (accelerators.md 2.2-2.4). */
#ifndef EDGEAI_STANDIN_PACKAGE_H
#define EDGEAI_STANDIN_PACKAGE_H

#include <stddef.h>
#include <stdint.h>

#define PACKAGE_LAYERS 16

struct package {
  uint64_t token;
  uint32_t cached_bytes;   /* parameters of the PARAMETER_CACHING executable; sent once */
  uint32_t streamed_bytes; /* parameters of the executable that runs; sent with every inference */
  int caches;              /* there is a PARAMETER_CACHING executable */
  int inputs, outputs;     /* layer counts */
  uint32_t input_bytes[PACKAGE_LAYERS], output_bytes[PACKAGE_LAYERS]; /* padded sizes */
};

/* NULL when fine, else why the package is refused. Never reads outside the buffer. */
const char *package_parse(const uint8_t *options, size_t length, struct package *out);

#endif
