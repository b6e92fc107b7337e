/* libmvnc of NCSDK 2: devices, graphs and fifos with its status codes, states, blocking and conversions. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/control.h"
#include "stick.h"

enum {
  OK = 0, BUSY = -1, ERROR = -2, OUT_OF_MEMORY = -3, DEVICE_NOT_FOUND = -4, INVALID_PARAMETERS = -5, TIMEOUT = -6,
  MVCMD_NOT_FOUND = -7, NOT_ALLOCATED = -8, UNAUTHORIZED = -9, UNSUPPORTED_GRAPH_FILE = -10,
  UNSUPPORTED_FEATURE = -12, MYRIAD_ERROR = -13, INVALID_DATA_LENGTH = -14, INVALID_HANDLE = -15,
};
enum { FP16, FP32 };
enum { HOST_RO, HOST_WO };

#define SLOTS 16
#define OPEN_MS 3000.0
#define OPEN_TIMEOUT_MS 15000.0
#define CLOSE_MS 1000.0

struct descriptor {
  unsigned n, c, w, h, total, c_stride, w_stride, h_stride, type;
};

struct device {
  char name[NAME_SIZE];
  int state, lock, throttle;
  unsigned graphs, fifos;
};

struct graph {
  char name[NAME_SIZE];
  int state; /* 0 created, 1 allocated */
  struct device *device;
  struct descriptor in, out;
  unsigned version[2], stages;
  float *times;
  char debug[120];
};

struct fifo {
  char name[NAME_SIZE];
  int type, data_type, state;
  struct device *device;
  struct descriptor graph_side, host_side;
  unsigned capacity, fill;
  uint16_t *element[SLOTS]; /* FP16, oldest first */
  void *user[SLOTS];
  pthread_mutex_t mutex;
  pthread_cond_t changed;
};

/* The public handles hold one pointer. */
struct handle {
  void *data;
};

__attribute__((constructor)) static void loaded(void) { control_init("MVNC_STANDIN"); }

static struct descriptor describe(unsigned w, unsigned h, unsigned c, unsigned type) {
  unsigned size = type == FP32 ? 4 : 2;
  return (struct descriptor){1, c, w, h, size * c * w * h, size, size * c, size * c * w, type};
}

static uint16_t to_half(float value) {
  _Float16 half = (_Float16)value;
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}

static float from_half(uint16_t bits) {
  _Float16 half;
  memcpy(&half, &bits, 2);
  return (float)half;
}

/* Options of every object: copy out `size` bytes, or say how many are needed. */
static int give(const void *value, unsigned size, void *data, unsigned *length) {
  if (!data || *length < size) {
    *length = size;
    return INVALID_DATA_LENGTH;
  }
  memcpy(data, value, size);
  *length = size;
  return OK;
}

static int give_int(int value, void *data, unsigned *length) { return give(&value, sizeof value, data, length); }

EXPORT int ncGlobalSetOption(int option, const void *data, unsigned length) {
  return option == 0 && data && length == 4 ? OK : INVALID_PARAMETERS;
}

EXPORT int ncGlobalGetOption(int option, void *data, unsigned *length) {
  static const unsigned version[4] = {2, 10, 1, 1};
  if (!length) return INVALID_PARAMETERS;
  if (option == 0) return give_int(2, data, length);
  return option == 1 ? give(version, sizeof version, data, length) : INVALID_PARAMETERS;
}

/* --- device ------------------------------------------------------------------------------------------------------ */

EXPORT int ncDeviceCreate(int index, struct handle **handle) {
  char name[NAME_SIZE];
  if (index < 0) return INVALID_PARAMETERS;
  if (!handle) return INVALID_HANDLE;
  if (stick_name(index, name) != 0) return DEVICE_NOT_FOUND;
  struct device *d = calloc(1, sizeof *d);
  strcpy(d->name, name);
  d->lock = -2;
  *handle = calloc(1, sizeof **handle);
  (*handle)->data = d;
  return OK;
}

EXPORT int ncDeviceOpen(struct handle *handle) {
  if (!handle || !handle->data) return INVALID_HANDLE;
  struct device *d = handle->data;
  /* Here the original only says ERROR, whatever the reason. */
  if (!stick_firmware((void *)ncDeviceOpen, "MvNCAPI-ma2450.mvcmd")) return ERROR;
  d->lock = stick_claim(d->name);
  if (d->lock == -1) {
    control_wait(OPEN_TIMEOUT_MS, NULL, NULL);
    return ERROR;
  }
  if (control_wait(OPEN_MS, stick_gone, d->name)) return ERROR;
  d->state = 1;
  control_log("open %s", d->name);
  return OK;
}

EXPORT int ncDeviceClose(struct handle *handle) {
  if (!handle || !handle->data) return INVALID_HANDLE;
  struct device *d = handle->data;
  if (d->state != 1) return INVALID_PARAMETERS;
  d->state = 2;
  if (d->lock >= 0) close(d->lock);
  control_log("close %s", d->name);
  control_wait(CLOSE_MS, NULL, NULL);
  return OK;
}

EXPORT int ncDeviceDestroy(struct handle **handle) {
  if (!handle) return INVALID_HANDLE;
  if (!*handle) return OK;
  struct device *d = (*handle)->data;
  if (d->state == 1) return UNAUTHORIZED;
  free(d);
  free(*handle);
  *handle = NULL;
  return OK;
}

EXPORT int ncDeviceSetOption(struct handle *handle, int option, const void *data, unsigned length) {
  (void)handle, (void)option, (void)data, (void)length;
  return UNAUTHORIZED; /* every option of today is read-only */
}

EXPORT int ncDeviceGetOption(struct handle *handle, int option, void *data, unsigned *length) {
  static const unsigned firmware[4] = {2, 8, 2450, 1}, tensor[2] = {2, 10};
  float thermal[THERMAL_FLOATS];
  if (!handle || !handle->data || !length) return INVALID_HANDLE;
  struct device *d = handle->data;
  if (d->state != 1 && option != 2002 && option != 2013) return UNAUTHORIZED;
  switch (option) {
    case 2000:
      if (stick_gone(d->name)) return ERROR;
      for (int i = 0; i < THERMAL_FLOATS; i++) thermal[i] = (float)stick_temperature();
      return give(thermal, sizeof thermal, data, length);
    case 2001:
      return give_int(stick_throttle_level(85, 95), data, length);
    case 2002:
      return give_int(d->state, data, length);
    case 2003:
      return give_int(16 << 20, data, length);
    case 2004:
      return give_int((int)control_number("memory", 460 << 20), data, length);
    case 2005:
      return give_int(20, data, length);
    case 2006:
      return give_int((int)d->fifos, data, length);
    case 2007:
      return give_int(10, data, length);
    case 2008:
      return give_int((int)d->graphs, data, length);
    case 2009:
      return give_int(1, data, length);
    case 2010:
      return give(firmware, sizeof firmware, data, length);
    case 2012:
      return give(tensor, sizeof tensor, data, length);
    case 2013:
      return give(d->name, (unsigned)strlen(d->name) + 1, data, length);
    case 2014:
      return give_int(1, data, length);
    case 2015:
      return give_int(0, data, length);
    default:
      return INVALID_PARAMETERS;
  }
}

/* --- graph ------------------------------------------------------------------------------------------------------- */

EXPORT int ncGraphCreate(const char *name, struct handle **handle) {
  if (!name || !handle) return INVALID_PARAMETERS;
  struct graph *g = calloc(1, sizeof *g);
  snprintf(g->name, sizeof g->name, "%s", name);
  *handle = calloc(1, sizeof **handle);
  (*handle)->data = g;
  return OK;
}

EXPORT int ncGraphAllocate(struct handle *device, struct handle *handle, const void *file, unsigned length) {
  if (!device || !device->data || !handle || !handle->data) return INVALID_HANDLE;
  if (!file) return INVALID_PARAMETERS;
  struct device *d = device->data;
  struct graph *g = handle->data;
  if (d->state != 1) return UNAUTHORIZED;
  if (g->state) return UNAUTHORIZED;
  if (length < 0x5c || stick_u32(file, 34) != 8708 || stick_u32(file, 38) != length || stick_u32(file, 42) != 2)
    return UNSUPPORTED_GRAPH_FILE;
  if (length > control_number("memory", 460 << 20)) return OUT_OF_MEMORY;
  if (d->graphs >= 10) return OUT_OF_MEMORY;
  if (control_wait(1, stick_gone, d->name)) return ERROR;
  unsigned inputs = stick_u32(file, 66), outputs = stick_u32(file, 0x58);
  unsigned side = (unsigned)lround(sqrt(inputs / 3.0));
  g->in = side * side * 3 == inputs ? describe(side, side, 3, FP16) : describe(1, 1, inputs, FP16);
  g->out = describe(1, 1, outputs, FP16);
  g->version[0] = 2;
  g->version[1] = stick_u32(file, 46);
  g->stages = stick_u32(file, 0x50);
  g->times = calloc(g->stages + 1, sizeof *g->times);
  g->device = d;
  g->state = 1;
  d->graphs++;
  control_log("graph stages=%u inputs=%u outputs=%u", g->stages, inputs, outputs);
  return OK;
}

EXPORT int ncGraphDestroy(struct handle **handle) {
  if (!handle) return INVALID_HANDLE;
  if (!*handle) return OK;
  struct graph *g = (*handle)->data;
  if (g->state && g->device) g->device->graphs--;
  free(g->times);
  free(g);
  free(*handle);
  *handle = NULL;
  return OK;
}

EXPORT int ncGraphSetOption(struct handle *handle, int option, const void *data, unsigned length) {
  if (!handle || !handle->data) return INVALID_HANDLE;
  struct graph *g = handle->data;
  if (option != 1110 || !data || length != 4) return INVALID_PARAMETERS;
  return g->state ? UNAUTHORIZED : OK;
}

EXPORT int ncGraphGetOption(struct handle *handle, int option, void *data, unsigned *length) {
  if (!handle || !handle->data) return INVALID_HANDLE;
  if (!length) return INVALID_PARAMETERS;
  struct graph *g = handle->data;
  if (!g->state && option != 1000 && option != 1007) return NOT_ALLOCATED;
  switch (option) {
    case 1000:
      return give_int(g->state, data, length);
    case 1001:
      return give(g->times, 4 * g->stages, data, length);
    case 1002:
    case 1003:
      return give_int(1, data, length);
    case 1004:
      return give(&g->in, sizeof g->in, data, length);
    case 1005:
      return give(&g->out, sizeof g->out, data, length);
    case 1006:
      return give(g->debug, sizeof g->debug, data, length);
    case 1007:
      return give(g->name, (unsigned)strlen(g->name) + 1, data, length);
    case 1008:
      return give_int(1, data, length);
    case 1009:
      return give(g->version, sizeof g->version, data, length);
    case 1011:
      return give_int((int)(4 * g->stages), data, length);
    case 1110:
      return give_int(1, data, length);
    default:
      return INVALID_PARAMETERS;
  }
}

/* --- fifo -------------------------------------------------------------------------------------------------------- */

EXPORT int ncFifoCreate(const char *name, int type, struct handle **handle) {
  if (!name || !handle) return INVALID_PARAMETERS;
  if (type != HOST_RO && type != HOST_WO) return UNSUPPORTED_FEATURE;
  struct fifo *f = calloc(1, sizeof *f);
  snprintf(f->name, sizeof f->name, "%s", name);
  f->type = type;
  f->data_type = FP32;
  pthread_mutex_init(&f->mutex, NULL);
  pthread_cond_init(&f->changed, NULL);
  *handle = calloc(1, sizeof **handle);
  (*handle)->data = f;
  return OK;
}

EXPORT int ncFifoAllocate(struct handle *handle, struct handle *device, struct descriptor *descriptor, unsigned elements) {
  if (!handle || !handle->data || !device || !device->data) return INVALID_HANDLE;
  if (!descriptor || !elements) return INVALID_PARAMETERS;
  struct fifo *f = handle->data;
  struct device *d = device->data;
  if (f->state || d->state != 1) return UNAUTHORIZED;
  if (elements > SLOTS || d->fifos >= 20) return OUT_OF_MEMORY;
  f->graph_side = *descriptor;
  f->host_side = describe(descriptor->w, descriptor->h, descriptor->c, (unsigned)f->data_type);
  f->capacity = elements;
  f->device = d;
  f->state = 1;
  d->fifos++;
  return OK;
}

EXPORT int ncFifoSetOption(struct handle *handle, int option, const void *data, unsigned length) {
  if (!handle || !handle->data) return INVALID_HANDLE;
  struct fifo *f = handle->data;
  if (!data) return INVALID_PARAMETERS;
  if (f->state && option != 11) return UNAUTHORIZED;
  if (option == 11) return length == sizeof f->host_side ? OK : INVALID_DATA_LENGTH;
  if (length != 4) return INVALID_DATA_LENGTH;
  int value = *(const int *)data;
  if (option == 0)
    f->type = value;
  else if (option == 2 && (value == FP16 || value == FP32))
    f->data_type = value;
  else if (option == 3)
    return UNSUPPORTED_FEATURE;
  else if (option != 1 || value != 1)
    return INVALID_PARAMETERS;
  return OK;
}

EXPORT int ncFifoGetOption(struct handle *handle, int option, void *data, unsigned *length) {
  if (!handle || !handle->data || !length) return INVALID_HANDLE;
  struct fifo *f = handle->data;
  switch (option) {
    case 0:
      return give_int(f->type, data, length);
    case 1:
      return give_int(1, data, length);
    case 2:
      return give_int(f->data_type, data, length);
    case 4:
      return give_int((int)f->capacity, data, length);
    case 5:
      return give_int(f->type == HOST_RO ? (int)f->fill : 0, data, length);
    case 6:
      return give_int(f->type == HOST_WO ? (int)f->fill : 0, data, length);
    case 7:
      return give(&f->graph_side, sizeof f->graph_side, data, length);
    case 8:
      return give_int(f->state, data, length);
    case 9:
      return give(f->name, (unsigned)strlen(f->name) + 1, data, length);
    case 10:
      return f->state ? give_int((int)f->host_side.total, data, length) : NOT_ALLOCATED;
    case 11:
      return give(&f->host_side, sizeof f->host_side, data, length);
    default:
      return INVALID_PARAMETERS;
  }
}

EXPORT int ncFifoDestroy(struct handle **handle) {
  if (!handle) return INVALID_HANDLE;
  if (!*handle) return OK;
  struct fifo *f = (*handle)->data;
  if (f->state) f->device->fifos--;
  for (unsigned i = 0; i < f->fill; i++) free(f->element[i]);
  free(f);
  free(*handle);
  *handle = NULL;
  return OK;
}

static void push(struct fifo *f, uint16_t *element, void *user) {
  pthread_mutex_lock(&f->mutex);
  while (f->fill == f->capacity) pthread_cond_wait(&f->changed, &f->mutex); /* a full fifo blocks, for ever if need be */
  f->element[f->fill] = element;
  f->user[f->fill++] = user;
  pthread_cond_broadcast(&f->changed);
  pthread_mutex_unlock(&f->mutex);
}

static uint16_t *pop(struct fifo *f, void **user) {
  pthread_mutex_lock(&f->mutex);
  while (f->fill == 0) pthread_cond_wait(&f->changed, &f->mutex);
  uint16_t *element = f->element[0];
  if (user) *user = f->user[0];
  f->fill--;
  memmove(f->element, f->element + 1, f->fill * sizeof *f->element);
  memmove(f->user, f->user + 1, f->fill * sizeof *f->user);
  pthread_cond_broadcast(&f->changed);
  pthread_mutex_unlock(&f->mutex);
  return element;
}

EXPORT int ncFifoWriteElem(struct handle *handle, const void *tensor, unsigned *length, void *user) {
  char text[CONTROL_TEXT];
  if (!handle || !handle->data) return INVALID_HANDLE;
  struct fifo *f = handle->data;
  if (!length || !*length || !tensor) return INVALID_PARAMETERS;
  if (!f->state) return NOT_ALLOCATED;
  if (f->type != HOST_WO) return UNAUTHORIZED;
  if (*length != f->host_side.total) {
    *length = f->host_side.total;
    return INVALID_DATA_LENGTH;
  }
  control_wait(0, NULL, NULL);
  if (control_get("write-error", text) || stick_gone(f->device->name)) return ERROR;
  size_t values = f->graph_side.total / 2;
  uint16_t *element = malloc(values * 2 + 1);
  if (f->data_type == FP32)
    for (size_t i = 0; i < values; i++) element[i] = to_half(((const float *)tensor)[i]);
  else
    memcpy(element, tensor, values * 2);
  push(f, element, user);
  return OK;
}

EXPORT int ncGraphQueueInference(struct handle *graph, struct handle **in, unsigned ins, struct handle **out, unsigned outs) {
  char text[CONTROL_TEXT];
  if (!graph || !graph->data || !in || !in[0] || !out || !out[0]) return INVALID_HANDLE;
  struct graph *g = graph->data;
  struct fifo *fi = in[0]->data, *fo = out[0]->data;
  if (!ins || !outs) return INVALID_PARAMETERS;
  if (!g->state || !fi->state || !fo->state) return NOT_ALLOCATED;
  if (ins != 1 || outs != 1 || fo->type == HOST_WO) return INVALID_PARAMETERS;
  if (fi->graph_side.total != g->in.total || fo->graph_side.total != g->out.total) return INVALID_PARAMETERS;
  if (fi->fill == 0) return UNAUTHORIZED;
  int level = stick_throttle_level(85, 95);
  double ms = stick_compute_ms(level, 100, 10000);
  void *user;
  uint16_t *element = pop(fi, &user);
  if (control_get("stall", text)) {
    free(element);
    return OK; /* the result never comes */
  }
  if (control_wait(ms, stick_gone, g->device->name)) {
    free(element);
    return ERROR;
  }
  uint16_t *result = calloc(g->out.total / 2 + 1, 2);
  stick_run(element, g->in.total / 2, result, g->out.total / 2);
  free(element);
  for (unsigned i = 0; i < g->stages; i++) g->times[i] = (float)(ms / g->stages);
  control_log("invoke %s ms=%.1f throttle=%d", g->device->name, ms, level);
  if (control_get("myriad-error", text)) {
    snprintf(g->debug, sizeof g->debug, "%.119s", *text ? text : "error");
    free(result);
    return MYRIAD_ERROR;
  }
  push(fo, result, user);
  return OK;
}

EXPORT int ncFifoReadElem(struct handle *handle, void *data, unsigned *length, void **user) {
  if (!handle || !handle->data) return INVALID_HANDLE;
  struct fifo *f = handle->data;
  if (!length || (*length && !data)) return INVALID_PARAMETERS;
  if (!f->state) return NOT_ALLOCATED;
  if (*length < f->host_side.total) {
    *length = f->host_side.total;
    return INVALID_DATA_LENGTH;
  }
  if (f->type != HOST_RO) return UNAUTHORIZED;
  uint16_t *element = pop(f, user);
  size_t values = f->graph_side.total / 2;
  if (f->data_type == FP32)
    for (size_t i = 0; i < values; i++) ((float *)data)[i] = from_half(element[i]);
  else
    memcpy(data, element, values * 2);
  free(element);
  *length = f->host_side.total;
  return OK;
}

EXPORT int ncFifoRemoveElem(struct handle *handle) {
  (void)handle;
  return UNSUPPORTED_FEATURE;
}

EXPORT int ncGraphQueueInferenceWithFifoElem(struct handle *graph, struct handle *in, struct handle *out,
                                             const void *tensor, unsigned *length, void *user) {
  int rc = ncFifoWriteElem(in, tensor, length, user);
  return rc == OK ? ncGraphQueueInference(graph, &in, 1, &out, 1) : rc;
}

EXPORT int ncGraphAllocateWithFifosEx(struct handle *device, struct handle *graph, const void *file, unsigned length,
                                      struct handle **in, int in_type, int in_count, int in_data, struct handle **out,
                                      int out_type, int out_count, int out_data) {
  if (!in || !in_count || !out || !out_count || !graph || !device || !file) return INVALID_PARAMETERS;
  int rc = ncGraphAllocate(device, graph, file, length);
  if (rc != OK) return rc;
  if (in_type == HOST_RO || out_type == HOST_WO) return INVALID_PARAMETERS;
  struct graph *g = graph->data;
  if ((rc = ncFifoCreate("fifoIn0", in_type, in)) != OK) return rc;
  ncFifoSetOption(*in, 2, &in_data, 4);
  if ((rc = ncFifoAllocate(*in, device, &g->in, (unsigned)in_count)) != OK) return rc;
  if ((rc = ncFifoCreate("fifoOut0", out_type, out)) != OK) return rc;
  ncFifoSetOption(*out, 2, &out_data, 4);
  return ncFifoAllocate(*out, device, &g->out, (unsigned)out_count);
}

EXPORT int ncGraphAllocateWithFifos(struct handle *device, struct handle *graph, const void *file, unsigned length,
                                    struct handle **in, struct handle **out) {
  return ncGraphAllocateWithFifosEx(device, graph, file, length, in, HOST_WO, 2, FP32, out, HOST_RO, 2, FP32);
}
