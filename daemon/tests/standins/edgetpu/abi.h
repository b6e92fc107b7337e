/* The part of the TFLite C ABI that a delegate touches, and edgetpu_c.h, written down from the published layouts.
 *
 * Sizes on LP64 (x86-64 and aarch64 alike): TfLiteTensor 112, TfLiteNode 80, TfLiteContext 200, and
 *   today (TF >= 2.16.1, LiteRT 1.1.2 to 2.3):   TfLiteRegistration 88, TfLiteDelegate 56
 *   with STANDIN_OLD_ABI (TF <= 2.6):            TfLiteRegistration 64, TfLiteDelegate 48
 * TfLiteRegistration goes by value: with the old size a runtime of today reads 24 bytes past the copy and follows a
 * pointer it finds there.
 */
#ifndef EDGEAI_STANDIN_ABI_H
#define EDGEAI_STANDIN_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { kTfLiteOk = 0, kTfLiteError = 1, kTfLiteDelegateError = 2 } TfLiteStatus;

typedef struct TfLiteIntArray {
  int size;
  int data[];
} TfLiteIntArray;

typedef struct TfLiteTensor {
  int type;
  void *data;
  TfLiteIntArray *dims;
  float scale;
  int32_t zero_point;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  struct TfLiteDelegate *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    int type;
    void *params;
  } quantization;
  void *sparsity;
  const TfLiteIntArray *dims_signature;
} TfLiteTensor;

typedef struct TfLiteNode {
  TfLiteIntArray *inputs;
  TfLiteIntArray *outputs;
  TfLiteIntArray *intermediates;
  TfLiteIntArray *temporaries;
  void *user_data;
  void *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
  struct TfLiteDelegate *delegate;
  bool might_have_side_effect;
} TfLiteNode;

struct TfLiteContext;

typedef struct TfLiteRegistration {
  void *(*init)(struct TfLiteContext *, const char *, size_t);
  void (*free)(struct TfLiteContext *, void *);
  TfLiteStatus (*prepare)(struct TfLiteContext *, TfLiteNode *);
  TfLiteStatus (*invoke)(struct TfLiteContext *, TfLiteNode *);
  const char *(*profiling_string)(const struct TfLiteContext *, const TfLiteNode *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
#ifndef STANDIN_OLD_ABI
  void *registration_external;
  void *(*async_kernel)(struct TfLiteContext *, TfLiteNode *);
  uint64_t inplace_operator;
#endif
} TfLiteRegistration;

typedef struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(struct TfLiteContext *, TfLiteIntArray **);
  TfLiteTensor *tensors;
  void *impl_;
  TfLiteStatus (*ResizeTensor)(struct TfLiteContext *, TfLiteTensor *, TfLiteIntArray *);
  void (*ReportError)(struct TfLiteContext *, const char *, ...);
  TfLiteStatus (*AddTensors)(struct TfLiteContext *, int, int *);
  TfLiteStatus (*GetNodeAndRegistration)(struct TfLiteContext *, int, TfLiteNode **, TfLiteRegistration **);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(struct TfLiteContext *, TfLiteRegistration,
                                                        const TfLiteIntArray *, struct TfLiteDelegate *);
  /* more members follow; a delegate of this kind does not touch them */
} TfLiteContext;

typedef struct TfLiteDelegate {
  void *data_;
  TfLiteStatus (*Prepare)(TfLiteContext *, struct TfLiteDelegate *);
  void *copy_from_buffer_handle;
  void *copy_to_buffer_handle;
  void *free_buffer_handle;
  int64_t flags;
#ifndef STANDIN_OLD_ABI
  void *opaque_delegate_builder;
#endif
} TfLiteDelegate;

typedef struct TfLiteDelegateParams {
  struct TfLiteDelegate *delegate;
  TfLiteIntArray *nodes_to_replace;
  TfLiteIntArray *input_tensors;
  TfLiteIntArray *output_tensors;
} TfLiteDelegateParams;

#ifdef STANDIN_OLD_ABI
_Static_assert(sizeof(TfLiteRegistration) == 64, "TF <= 2.6");
_Static_assert(sizeof(TfLiteDelegate) == 48, "TF <= 2.6");
#else
_Static_assert(sizeof(TfLiteRegistration) == 88, "TF >= 2.16.1");
_Static_assert(sizeof(TfLiteDelegate) == 56, "TF >= 2.16.1");
#endif
_Static_assert(sizeof(TfLiteTensor) == 112, "LP64");
_Static_assert(sizeof(TfLiteNode) == 80, "LP64");

enum edgetpu_device_type { EDGETPU_APEX_PCI = 0, EDGETPU_APEX_USB = 1 };

struct edgetpu_device {
  enum edgetpu_device_type type;
  const char *path;
};

struct edgetpu_option {
  const char *name;
  const char *value;
};

#define EXPORT __attribute__((visibility("default")))

#endif
