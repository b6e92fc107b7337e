/* A library that answers like libedgetpu.so.1: a TFLite delegate for `edgetpu-custom-op` and the calls of edgetpu_c.h.
 *
 * It never touches hardware. Environment (prefix EDGETPU_STANDIN_, see ../common/control.h) besides the common part:
 *   DEVICES  "usb:<path>,pci:<path>" (default one USB stick), or "sysfs": real or simulated sticks on the USB bus
 *   TWINS    directory of uncompiled models that give the outputs
 *   SYSFS    directory that plays /sys for the temperature of PCIe devices
 * Control lines: devices, compute <ms>, bandwidth <MiB/s>, slow <factor>, heat <milli-degrees>, hang, abort,
 *   vanish [path], vanish-mode error|hang (else the process aborts, as the real driver does), fail.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/control.h"
#include "abi.h"
#include "device.h"
#include "twin.h"

struct kernel {
  struct device *device;
  struct package package;
  const char *refused;
  void *twin;
};

static void *kernel_init(TfLiteContext *context, const char *buffer, size_t length) {
  (void)length;
  const TfLiteDelegateParams *params = (const TfLiteDelegateParams *)buffer;
  TfLiteNode *node = NULL;
  TfLiteRegistration *registration = NULL;
  struct kernel *k = calloc(1, sizeof *k);
  k->device = params->delegate->data_;
  if (params->nodes_to_replace->size != 1 ||
      context->GetNodeAndRegistration(context, params->nodes_to_replace->data[0], &node, &registration) != kTfLiteOk)
    k->refused = "more than one node in a partition";
  else
    k->refused = package_parse(node->custom_initial_data, (size_t)node->custom_initial_data_size, &k->package);
  return k;
}

static void kernel_free(TfLiteContext *context, void *data) {
  (void)context;
  struct kernel *k = data;
  if (!k) return;
  twin_free(k->twin);
  device_forget(k->device, k);
  free(k);
}

static TfLiteStatus kernel_prepare(TfLiteContext *context, TfLiteNode *node) {
  struct kernel *k = node->user_data;
  const struct package *p = &k->package;
  if (!k->refused && (p->inputs < node->inputs->size || p->outputs < node->outputs->size))
    k->refused = "the executable and the operator differ in their number of tensors";
  for (int i = 0; !k->refused && i < node->outputs->size; i++)
    if (context->tensors[node->outputs->data[i]].bytes > p->output_bytes[i])
      k->refused = "an output tensor is larger than its layer";
  if (k->refused) {
    context->ReportError(context, "Failed to prepare for TPU. %s", k->refused);
    return kTfLiteError;
  }
  if (!k->twin) k->twin = twin_find(context, node);
  return kTfLiteOk;
}

static TfLiteStatus kernel_invoke(TfLiteContext *context, TfLiteNode *node) {
  struct kernel *k = node->user_data;
  char text[CONTROL_TEXT];
  const char *name = context->tensors[node->inputs->data[0]].name;
  if (control_get("fail", text) || device_run(k->device, k, &k->package, name ? name : "?")) {
    context->ReportError(context, "Failed to execute request. %s", *text ? text : "USB transfer error");
    return kTfLiteError;
  }
  if (!k->twin || twin_run(k->twin, context, node) != 0) twin_fallback(context, node);
  return kTfLiteOk;
}

static TfLiteStatus delegate_prepare(TfLiteContext *context, TfLiteDelegate *delegate) {
  TfLiteIntArray *plan = NULL;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  int *claimed = calloc((size_t)plan->size + 1, sizeof *claimed), count = 0;
  for (int i = 0; i < plan->size; i++) {
    TfLiteNode *node = NULL;
    TfLiteRegistration *registration = NULL;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != kTfLiteOk) continue;
    if (registration->custom_name && strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      claimed[count++] = plan->data[i];
  }
  TfLiteRegistration registration = {0};
  registration.init = kernel_init;
  registration.free = kernel_free;
  registration.prepare = kernel_prepare;
  registration.invoke = kernel_invoke;
  registration.custom_name = "EdgeTpuDelegateForCustomOp";
  registration.version = 1;
  TfLiteStatus status = kTfLiteOk;
  for (int i = 0; i < count && status == kTfLiteOk; i++) { /* one by one: a partition must be one operator */
    union {
      TfLiteIntArray array;
      int words[2];
    } nodes;
    nodes.words[0] = 1;
    nodes.words[1] = claimed[i];
    status = context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, &nodes.array, delegate);
  }
  free(claimed);
  return status;
}

static TfLiteDelegate *make_delegate(struct device *device) {
  if (!device) return NULL;
  TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
  delegate->data_ = device;
  delegate->Prepare = delegate_prepare;
  delegate->flags = 1; /* dynamic tensors allowed */
  return delegate;
}

__attribute__((constructor)) static void loaded(void) { control_init("EDGETPU_STANDIN"); }

EXPORT struct edgetpu_device *edgetpu_list_devices(size_t *num_devices) {
  struct listed all[DEVICES];
  int count = device_list(all);
  *num_devices = (size_t)count;
  if (count == 0) return NULL;
  char *block = malloc((size_t)count * (sizeof(struct edgetpu_device) + PATH_BYTES));
  struct edgetpu_device *devices = (struct edgetpu_device *)block;
  char *paths = block + (size_t)count * sizeof *devices;
  for (int i = 0; i < count; i++, paths += PATH_BYTES) {
    devices[i].type = all[i].type;
    devices[i].path = strcpy(paths, all[i].path);
  }
  return devices;
}

EXPORT void edgetpu_free_devices(struct edgetpu_device *devices) { free(devices); }

EXPORT TfLiteDelegate *edgetpu_create_delegate(enum edgetpu_device_type type, const char *name,
                                               const struct edgetpu_option *options, size_t num_options) {
  const char *performance = "";
  for (size_t i = 0; i < num_options; i++)
    if (strcmp(options[i].name, "Performance") == 0) performance = options[i].value;
  return make_delegate(device_open(type, name, performance));
}

EXPORT void edgetpu_free_delegate(TfLiteDelegate *delegate) {
  if (!delegate) return;
  device_close(delegate->data_);
  free(delegate);
}

EXPORT void edgetpu_verbosity(int verbosity) { (void)verbosity; }

EXPORT const char *edgetpu_version(void) {
#ifdef STANDIN_OLD_ABI
  return "BuildLabel(STAND-IN,OLD-ABI), RuntimeVersion(14)";
#else
  return "BuildLabel(STAND-IN), RuntimeVersion(14)";
#endif
}

/* "", ":N", "usb", "usb:N", "pci", "pci:N" as the plug-in of libedgetpu takes them. */
static struct device *open_by_name(const char *device, const char *performance) {
  struct listed all[DEVICES];
  int count = device_list(all), type = -1, index = 0;
  if (strncmp(device, "usb", 3) == 0) type = EDGETPU_APEX_USB;
  if (strncmp(device, "pci", 3) == 0) type = EDGETPU_APEX_PCI;
  const char *rest = device + (type >= 0 ? 3 : 0);
  if (*rest == ':') {
    char *end;
    index = (int)strtol(rest + 1, &end, 10);
    if (!rest[1] || *end) return NULL;
  } else if (*rest) {
    return NULL;
  }
  for (int i = 0; i < count; i++)
    if ((type < 0 || (int)all[i].type == type) && index-- == 0)
      return device_open((int)all[i].type, all[i].path, performance);
  return NULL;
}

EXPORT TfLiteDelegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                                     void (*report)(const char *)) {
  const char *device = "", *performance = "";
  for (size_t i = 0; i < count; i++) {
    if (strcmp(keys[i], "device") == 0) device = values[i];
    if (strcmp(keys[i], "Performance") == 0) performance = values[i];
  }
  TfLiteDelegate *delegate = make_delegate(open_by_name(device, performance));
  if (!delegate && report) report("no such Edge TPU, or it is in use");
  return delegate;
}

EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) { edgetpu_free_delegate(delegate); }
