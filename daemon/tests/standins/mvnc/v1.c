/* libmvnc of NCSDK 1: its thirteen calls, status codes, queue of two, throttling, timeouts, and its worst habit: after a
 * failed USB write in LoadTensor the device lock stays taken, and every later call about that device never returns. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../common/control.h"
#include "stick.h"

enum {
  OK = 0, BUSY = -1, ERROR = -2, OUT_OF_MEMORY = -3, DEVICE_NOT_FOUND = -4, INVALID_PARAMETERS = -5, TIMEOUT = -6,
  MVCMD_NOT_FOUND = -7, NO_DATA = -8, GONE = -9, UNSUPPORTED_GRAPH_FILE = -10, MYRIAD_ERROR = -11,
};
enum { ITERATIONS, NETWORK_THROTTLE, DONT_BLOCK, TIME_TAKEN = 1000, DEBUG_INFO = 1001 };
enum {
  TEMP_LIM_LOWER = 1, TEMP_LIM_HIGHER, BACKOFF_NORMAL, BACKOFF_HIGH, BACKOFF_CRITICAL, TEMPERATURE_DEBUG,
  THERMAL_STATS = 1000, OPTIMISATION_LIST = 1001, THROTTLING_LEVEL = 1002,
};

#define HEADER 264
#define STAGE 227
#define DEVICES 4
#define RESULT_TIMEOUT_MS 15000.0
#define OPEN_MS 2000.0
#define CLOSE_MS 500.0

struct graph {
  struct device *device;
  unsigned stages, outputs;
  int iterations, network_throttle, dont_block, failed;
  int queued, first;
  uint16_t *input[2];
  size_t input_values[2];
  void *user[2];
  uint16_t *output;
  float *times;
  char debug[120];
};

struct device {
  char name[NAME_SIZE];
  int lock;
  pthread_mutex_t mutex;
  struct graph *graph; /* one graph per device */
  float lower, upper, thermal[THERMAL_FLOATS];
  int backoff[3], temperature_debug, throttle;
  char optimisations[40 * 50];
};

static pthread_mutex_t global_ = PTHREAD_MUTEX_INITIALIZER;
static struct device *devices_[DEVICES];
static int log_level_;

__attribute__((constructor)) static void loaded(void) { control_init("MVNC_STANDIN"); }

static int known(const struct device *d) {
  for (int i = 0; i < DEVICES; i++)
    if (d && devices_[i] == d) return 1;
  return 0;
}

static int known_graph(const struct graph *g) {
  for (int i = 0; i < DEVICES; i++)
    if (g && devices_[i] && devices_[i]->graph == g) return 1;
  return 0;
}

EXPORT int mvncGetDeviceName(int index, char *name, unsigned size) {
  if (index < 0 || !name || size < NAME_SIZE) return INVALID_PARAMETERS;
  return stick_name(index, name) == 0 ? OK : DEVICE_NOT_FOUND;
}

EXPORT int mvncOpenDevice(const char *name, void **handle) {
  if (!name || !handle) return INVALID_PARAMETERS;
  pthread_mutex_lock(&global_);
  int rc = ERROR, slot = 0, lock = -1;
  struct device *d = NULL;
  while (slot < DEVICES && devices_[slot]) slot++;
  if (!stick_firmware((void *)mvncOpenDevice, "MvNCAPI.mvcmd")) {
    rc = MVCMD_NOT_FOUND;
  } else if (stick_gone((void *)name)) {
    control_wait(RESULT_TIMEOUT_MS, NULL, NULL);
  } else if (slot < DEVICES && (lock = stick_claim(name)) != -1) {
    if (control_wait(OPEN_MS, stick_gone, (void *)name) == 0) {
      d = calloc(1, sizeof *d);
      strncpy(d->name, name, NAME_SIZE - 1);
      d->lock = lock;
      d->lower = 85;
      d->upper = 95;
      d->backoff[1] = 100;
      d->backoff[2] = 10000;
      pthread_mutex_init(&d->mutex, NULL);
      *handle = devices_[slot] = d;
      control_log("open %s", name);
      rc = OK;
    } else if (lock >= 0) {
      close(lock);
    }
  }
  pthread_mutex_unlock(&global_);
  return rc;
}

static void free_graph(struct graph *g) {
  g->device->graph = NULL;
  free(g->input[0]);
  free(g->input[1]);
  free(g->output);
  free(g->times);
  free(g);
}

EXPORT int mvncCloseDevice(void *handle) {
  struct device *d = handle;
  pthread_mutex_lock(&global_);
  if (!known(d)) {
    pthread_mutex_unlock(&global_);
    return INVALID_PARAMETERS;
  }
  for (int i = 0; i < DEVICES; i++)
    if (devices_[i] == d) devices_[i] = NULL;
  pthread_mutex_lock(&d->mutex); /* never returns after a failed write */
  if (d->graph) free_graph(d->graph);
  pthread_mutex_unlock(&d->mutex);
  control_log("close %s", d->name);
  if (d->lock >= 0) close(d->lock);
  free(d);
  pthread_mutex_unlock(&global_);
  control_wait(CLOSE_MS, NULL, NULL);
  return OK;
}

EXPORT int mvncAllocateGraph(void *handle, void **result, const void *file, unsigned length) {
  struct device *d = handle;
  if (!d || !result || !file) return INVALID_PARAMETERS;
  if (length < HEADER + STAGE || length > 512u << 20 || ((const uint8_t *)file)[36] != 2) return UNSUPPORTED_GRAPH_FILE;
  unsigned stages = stick_u32(file, 240) & 0xffff;
  if (stages == 0 || HEADER + (uint64_t)stages * STAGE > length) { /* the real library reads out of bounds here */
    fprintf(stderr, "stand-in: graph with a wrong stage count reached the library\n");
    abort();
  }
  size_t last = HEADER + (size_t)(stages - 1) * STAGE;
  uint64_t outputs = (uint64_t)stick_u32(file, last + 136) * stick_u32(file, last + 140) * stick_u32(file, last + 172) / 2;
  if (outputs > 64u << 20) return UNSUPPORTED_GRAPH_FILE;
  pthread_mutex_lock(&global_);
  int rc = OK;
  if (!known(d)) {
    rc = INVALID_PARAMETERS;
  } else if (d->graph) {
    rc = BUSY;
  } else if (stick_gone(d->name)) {
    rc = ERROR;
  } else {
    struct graph *g = calloc(1, sizeof *g);
    g->device = d;
    g->stages = stages;
    g->outputs = (unsigned)outputs;
    g->output = calloc(outputs + 1, 2);
    g->times = calloc(stages, sizeof *g->times);
    g->iterations = g->network_throttle = 1;
    *result = d->graph = g;
    control_log("graph stages=%u outputs=%u", stages, g->outputs);
  }
  pthread_mutex_unlock(&global_);
  return rc;
}

EXPORT int mvncDeallocateGraph(void *handle) {
  struct graph *g = handle;
  int rc = INVALID_PARAMETERS;
  pthread_mutex_lock(&global_);
  if (known_graph(g)) {
    struct device *d = g->device;
    pthread_mutex_lock(&d->mutex);
    free_graph(g);
    pthread_mutex_unlock(&d->mutex);
    rc = OK;
  }
  pthread_mutex_unlock(&global_);
  return rc;
}

EXPORT int mvncLoadTensor(void *handle, const void *tensor, unsigned length, void *user) {
  struct graph *g = handle;
  char text[CONTROL_TEXT];
  if (!g || !tensor || length < 2) return INVALID_PARAMETERS;
  pthread_mutex_lock(&global_);
  if (!known_graph(g)) {
    pthread_mutex_unlock(&global_);
    return INVALID_PARAMETERS;
  }
  while (g->queued == 2) {
    if (g->dont_block || g->failed) {
      pthread_mutex_unlock(&global_);
      return g->dont_block ? BUSY : ERROR;
    }
    pthread_mutex_unlock(&global_);
    usleep(1000);
    pthread_mutex_lock(&global_);
    if (!known_graph(g)) {
      pthread_mutex_unlock(&global_);
      return GONE;
    }
  }
  struct device *d = g->device;
  pthread_mutex_lock(&d->mutex);
  pthread_mutex_unlock(&global_);
  control_wait(0, NULL, NULL);
  if (control_get("write-error", text) || stick_gone(d->name)) {
    control_log("write-error");
    return ERROR; /* d->mutex stays locked, as in the original */
  }
  int slot = (g->first + g->queued) % 2;
  free(g->input[slot]);
  g->input[slot] = malloc(length);
  memcpy(g->input[slot], tensor, length);
  g->input_values[slot] = length / 2;
  g->user[slot] = user;
  g->queued++;
  pthread_mutex_unlock(&d->mutex);
  return OK;
}

EXPORT int mvncGetResult(void *handle, void **data, unsigned *length, void **user) {
  struct graph *g = handle;
  char text[CONTROL_TEXT];
  if (!g || !data || !length) return INVALID_PARAMETERS;
  pthread_mutex_lock(&global_);
  if (!known_graph(g)) {
    pthread_mutex_unlock(&global_);
    return INVALID_PARAMETERS;
  }
  while (!g->queued) {
    if (g->dont_block) {
      pthread_mutex_unlock(&global_);
      return NO_DATA;
    }
    pthread_mutex_unlock(&global_);
    usleep(1000);
    pthread_mutex_lock(&global_);
    if (!known_graph(g)) {
      pthread_mutex_unlock(&global_);
      return GONE;
    }
  }
  struct device *d = g->device;
  pthread_mutex_lock(&d->mutex);
  pthread_mutex_unlock(&global_);
  int level = stick_throttle_level(d->lower, d->upper), rc = OK;
  double ms = stick_compute_ms(level, d->backoff[1], d->backoff[2]);
  if (control_get("stall", text) || ms > RESULT_TIMEOUT_MS) {
    control_wait(RESULT_TIMEOUT_MS, stick_gone, d->name);
    rc = TIMEOUT;
  } else if (control_wait(ms, stick_gone, d->name)) {
    control_wait(RESULT_TIMEOUT_MS - ms, NULL, NULL); /* reads fail until the time is up */
    rc = TIMEOUT;
  }
  if (rc == OK) {
    stick_run(g->input[g->first], g->input_values[g->first], g->output, g->outputs);
    if (control_get("myriad-error", text)) {
      snprintf(g->debug, sizeof g->debug, "%.119s", *text ? text : "error");
      rc = MYRIAD_ERROR;
    }
    for (int i = 0; i < THERMAL_FLOATS; i++) d->thermal[i] = (float)stick_temperature();
    for (unsigned i = 0; i < g->stages; i++) g->times[i] = (float)(ms / g->stages);
    d->throttle = level;
    *data = g->output;
    *length = 2 * g->outputs;
    if (user) *user = g->user[g->first];
    g->first = !g->first;
    g->queued--;
    control_log("invoke %s ms=%.1f throttle=%d", d->name, ms, level);
  }
  if (rc != OK) g->failed = 1;
  pthread_mutex_unlock(&d->mutex);
  return rc;
}

EXPORT int mvncSetGlobalOption(int option, const void *data, unsigned length) {
  if (option != 0 || !data || length != 4) return INVALID_PARAMETERS;
  log_level_ = *(const int *)data;
  return OK;
}

EXPORT int mvncGetGlobalOption(int option, void *data, unsigned *length) {
  if (option != 0 || !data || !length) return INVALID_PARAMETERS;
  *(int *)data = log_level_;
  *length = 4;
  return OK;
}

EXPORT int mvncSetGraphOption(void *handle, int option, const void *data, unsigned length) {
  struct graph *g = handle;
  if (!g || !data || length != 4) return INVALID_PARAMETERS;
  int value = *(const int *)data;
  if (option == ITERATIONS)
    g->iterations = value;
  else if (option == NETWORK_THROTTLE)
    g->network_throttle = value;
  else if (option == DONT_BLOCK)
    g->dont_block = value;
  else
    return INVALID_PARAMETERS;
  return OK;
}

EXPORT int mvncGetGraphOption(void *handle, int option, void *data, unsigned *length) {
  struct graph *g = handle;
  if (!g || !data || !length) return INVALID_PARAMETERS;
  pthread_mutex_lock(&g->device->mutex);
  int rc = OK;
  *length = 4;
  if (option == ITERATIONS)
    *(int *)data = g->iterations;
  else if (option == NETWORK_THROTTLE)
    *(int *)data = g->network_throttle;
  else if (option == DONT_BLOCK)
    *(int *)data = g->dont_block;
  else if (option == TIME_TAKEN) {
    *(float **)data = g->times;
    *length = 4 * g->stages;
  } else if (option == DEBUG_INFO) {
    *(char **)data = g->debug;
    *length = sizeof g->debug;
  } else
    rc = INVALID_PARAMETERS;
  pthread_mutex_unlock(&g->device->mutex);
  return rc;
}

EXPORT int mvncSetDeviceOption(void *handle, int option, const void *data, unsigned length) {
  struct device *d = handle;
  if (!known(d) || !data || length != 4) return INVALID_PARAMETERS;
  if (option == TEMP_LIM_LOWER)
    d->lower = *(const float *)data;
  else if (option == TEMP_LIM_HIGHER)
    d->upper = *(const float *)data;
  else if (option >= BACKOFF_NORMAL && option <= BACKOFF_CRITICAL)
    d->backoff[option - BACKOFF_NORMAL] = *(const int *)data;
  else if (option == TEMPERATURE_DEBUG)
    d->temperature_debug = *(const int *)data;
  else
    return INVALID_PARAMETERS;
  return OK;
}

EXPORT int mvncGetDeviceOption(void *handle, int option, void *data, unsigned *length) {
  struct device *d = handle;
  if (!known(d) || !data || !length) return INVALID_PARAMETERS;
  pthread_mutex_lock(&d->mutex);
  int rc = OK;
  *length = 4;
  if (option == TEMP_LIM_LOWER)
    *(float *)data = d->lower;
  else if (option == TEMP_LIM_HIGHER)
    *(float *)data = d->upper;
  else if (option >= BACKOFF_NORMAL && option <= BACKOFF_CRITICAL)
    *(int *)data = d->backoff[option - BACKOFF_NORMAL];
  else if (option == TEMPERATURE_DEBUG)
    *(int *)data = d->temperature_debug;
  else if (option == THROTTLING_LEVEL)
    *(int *)data = d->throttle;
  else if (option == THERMAL_STATS && !d->graph)
    rc = NO_DATA;
  else if (option == THERMAL_STATS) {
    *(float **)data = d->thermal;
    *length = sizeof d->thermal;
  } else if (option == OPTIMISATION_LIST) {
    *(char **)data = d->optimisations;
    *length = sizeof d->optimisations;
  } else
    rc = INVALID_PARAMETERS;
  pthread_mutex_unlock(&d->mutex);
  return rc;
}
