#define _GNU_SOURCE
#include "stick.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "../common/control.h"

int stick_name(int index, char name[NAME_SIZE]) {
  char text[CONTROL_TEXT];
  if (control_get("vanish", text) || index >= (int)control_number("sticks", 1)) return -1;
  snprintf(name, NAME_SIZE, "1.%d-ma2450", index + 1);
  return 0;
}

int stick_gone(void *name) {
  char other[NAME_SIZE];
  for (int i = 0; stick_name(i, other) == 0; i++)
    if (strcmp(other, name) == 0) return 0;
  return 1;
}

int stick_claim(const char *name) {
  char file[64], path[CONTROL_TEXT];
  snprintf(file, sizeof file, "mvnc-%s.lock", name);
  if (!control_state(file, path)) return -2;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

int stick_firmware(const void *symbol, const char *file) {
  Dl_info info;
  char path[CONTROL_TEXT];
  if (!dladdr(symbol, &info)) return 0;
  const char *slash = strrchr(info.dli_fname, '/');
  int directory = slash ? (int)(slash - info.dli_fname + 1) : 0;
  snprintf(path, sizeof path, "%.*smvnc/%s", directory, info.dli_fname, file);
  return access(path, R_OK) == 0;
}

double stick_temperature(void) { return control_number("heat", 41); }

int stick_throttle_level(double lower, double upper) {
  double t = stick_temperature();
  return t >= upper ? 2 : t >= lower ? 1 : 0;
}

double stick_compute_ms(int level, double backoff_high, double backoff_critical) {
  double ms = control_number("compute", 20) * control_number("slow", 1);
  return ms + (level == 2 ? backoff_critical : level == 1 ? backoff_high : 0);
}

void stick_run(const uint16_t *input, size_t n, uint16_t *output, size_t outputs) {
  for (size_t i = 0; i < outputs; i++) output[i] = n ? input[7 * i % n] : 0;
}

uint32_t stick_u32(const void *graph, size_t at) {
  const uint8_t *p = (const uint8_t *)graph + at;
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
