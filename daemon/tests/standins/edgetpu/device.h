/* Simulated Edge TPU sticks: which are there, who holds one, what is in their cache, how long things take. */
#ifndef EDGEAI_STANDIN_DEVICE_H
#define EDGEAI_STANDIN_DEVICE_H

#include "abi.h"
#include "package.h"

#define DEVICES 8
#define PATH_BYTES 256

struct listed {
  enum edgetpu_device_type type;
  char path[PATH_BYTES];
};

struct device;

/* The devices present now, at most DEVICES. */
int device_list(struct listed out[DEVICES]);
/* Open (or share, within this process) a device; path NULL or "" = the first of the type; type -1 = any.
 * NULL when there is none or another process holds it. */
struct device *device_open(int type, const char *path, const char *performance);
void device_close(struct device *);
/* One inference: applies the token rule, waits for as long as it would take. `owner` identifies the loaded package.
 * 0 = done, 1 = the device went away. */
int device_run(struct device *, const void *owner, const struct package *, const char *model);
void device_forget(struct device *, const void *owner);

#endif
