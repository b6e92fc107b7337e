/* Outputs for an operator whose machine code nobody outside the chip can run. */
#ifndef EDGEAI_STANDIN_TWIN_H
#define EDGEAI_STANDIN_TWIN_H

#include "abi.h"

/* The uncompiled model with the same inputs and outputs, from the directory EDGETPU_STANDIN_TWINS, loaded into a second
 * interpreter of the Python process we live in; NULL when there is none. */
void *twin_find(TfLiteContext *, const TfLiteNode *);
/* 0 = outputs are filled by the twin. */
int twin_run(void *twin, TfLiteContext *, const TfLiteNode *);
void twin_free(void *twin);
/* Without a twin, or when it fails: bytes that depend on every input byte and on nothing else. FNV-1a (64 bit) over all inputs, then
 * output byte i of output k = byte i % 8 of splitmix64(hash + k * 2^32 + i / 8). */
void twin_fallback(TfLiteContext *, const TfLiteNode *);

#endif
