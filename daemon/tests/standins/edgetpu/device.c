#define _GNU_SOURCE
#include "device.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/control.h"

/* The published RPi 3B+ benchmark: t = compute + MiB moved / 33.5 MiB/s (accelerators.md 2.8). */
#define BANDWIDTH_MIB 33.5
#define COMPUTE_MS 10.33
/* The driver sleeps before each (re)open: two opens for a running stick, three when firmware must be loaded. */
#define REOPEN_MS 1000.0
#define CACHE_ENTRIES 64

struct device {
  struct listed id;
  int users, lock;
  uint64_t token;
  const void *cached[CACHE_ENTRIES];
  int cached_count;
  double slow; /* clock relative to Max */
};

static struct device *open_[DEVICES];
static pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;

static int usb_id(const char *directory, const char *name, const char *wanted) {
  char path[PATH_BYTES * 2], text[8] = "";
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  int match = fgets(text, sizeof text, file) && strncmp(text, wanted, 4) == 0;
  fclose(file);
  return match;
}

/* `devices sysfs`: whatever enumerates with Coral's ids on the (simulated) bus. */
static int list_sysfs(struct listed out[DEVICES]) {
  int count = 0;
  DIR *directory = opendir("/sys/bus/usb/devices");
  for (struct dirent *e; directory && count < DEVICES && (e = readdir(directory));) {
    char path[PATH_BYTES];
    if (e->d_name[0] == '.' || strlen(e->d_name) > 64) continue;
    snprintf(path, sizeof path, "/sys/bus/usb/devices/%s", e->d_name);
    if ((usb_id(path, "idVendor", "18d1") && usb_id(path, "idProduct", "9302")) ||
        (usb_id(path, "idVendor", "1a6e") && usb_id(path, "idProduct", "089a"))) {
      out[count].type = EDGETPU_APEX_USB;
      strcpy(out[count++].path, path);
    }
  }
  if (directory) closedir(directory);
  return count;
}

static int vanished(const char *path) {
  char text[CONTROL_TEXT];
  return control_get("vanish", text) && (!*text || strstr(text, path));
}

static int list_all(struct listed out[DEVICES]) {
  char text[CONTROL_TEXT];
  int count = 0;
  if (!control_get("devices", text))
    snprintf(text, sizeof text, "%s", control_env("DEVICES", "usb:/sys/bus/usb/devices/1-1"));
  if (strcmp(text, "sysfs") == 0) return list_sysfs(out);
  char *rest = text, *word;
  while ((word = strsep(&rest, " ,")) && count < DEVICES) {
    if (strncmp(word, "usb:", 4) != 0 && strncmp(word, "pci:", 4) != 0) continue;
    out[count].type = word[0] == 'u' ? EDGETPU_APEX_USB : EDGETPU_APEX_PCI;
    snprintf(out[count++].path, PATH_BYTES, "%s", word + 4);
  }
  return count;
}

int device_list(struct listed out[DEVICES]) {
  struct listed all[DEVICES];
  int count = list_all(all), kept = 0;
  for (int i = 0; i < count; i++)
    if (!vanished(all[i].path)) out[kept++] = all[i];
  return kept;
}

/* A file per device in the state directory; '/' cannot be in a file name. */
static int state_of(const char *path, const char *what, char out[CONTROL_TEXT]) {
  char name[PATH_BYTES + 32];
  snprintf(name, sizeof name, "edgetpu%s.%s", path, what);
  for (char *p = name; *p; p++)
    if (*p == '/') *p = '-';
  return control_state(name, out);
}

/* The USB interface can be claimed once on the whole machine. -1 = held by another process, -2 = no state directory. */
static int claim(const char *path) {
  char file[CONTROL_TEXT];
  if (!state_of(path, "lock", file)) return -2;
  int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

static int gone(void *device) { return vanished(((struct device *)device)->id.path); }

static int power_up(struct device *d) {
  char firmware[CONTROL_TEXT];
  int has_state = state_of(d->id.path, "firmware", firmware);
  int running = has_state && access(firmware, F_OK) == 0;
  if (control_wait(REOPEN_MS * (running ? 2 : 3), gone, d)) return 0;
  if (has_state && !running) {
    int fd = open(firmware, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) close(fd);
    control_log("firmware %s", d->id.path);
  }
  return 1;
}

struct device *device_open(int type, const char *path, const char *performance) {
  struct listed present[DEVICES];
  struct device *result = NULL;
  pthread_mutex_lock(&mutex_);
  int count = device_list(present), chosen = -1;
  for (int i = 0; i < count && chosen < 0; i++)
    if ((type < 0 || (int)present[i].type == type) && (!path || !*path || strcmp(path, present[i].path) == 0))
      chosen = i;
  for (int i = 0; i < DEVICES && chosen >= 0; i++)
    if (open_[i] && strcmp(open_[i]->id.path, present[chosen].path) == 0) {
      result = open_[i];
      result->users++;
      goto done;
    }
  if (chosen < 0) {
    fprintf(stderr, "stand-in: no such Edge TPU\n");
    goto done;
  }
  int slot = 0;
  while (slot < DEVICES && open_[slot]) slot++;
  int lock = slot < DEVICES ? claim(present[chosen].path) : -1;
  if (lock == -1) {
    fprintf(stderr, "stand-in: cannot claim the interface of %s\n", present[chosen].path);
    goto done;
  }
  struct device *d = calloc(1, sizeof *d);
  d->id = present[chosen];
  d->lock = lock;
  d->users = 1;
  d->slow = strcmp(performance, "Low") == 0 ? 8 : strcmp(performance, "Medium") == 0 ? 4 : 1;
  if (strcmp(performance, "High") == 0) d->slow = 2;
  if (!power_up(d)) {
    if (lock >= 0) close(lock);
    free(d);
    goto done;
  }
  open_[slot] = result = d;
  control_log("open %s performance=%s", d->id.path, *performance ? performance : "default");
done:
  pthread_mutex_unlock(&mutex_);
  return result;
}

void device_close(struct device *d) {
  pthread_mutex_lock(&mutex_);
  if (--d->users == 0) {
    for (int i = 0; i < DEVICES; i++)
      if (open_[i] == d) open_[i] = NULL;
    control_log("close %s", d->id.path);
    if (d->lock >= 0) close(d->lock);
    free(d);
  }
  pthread_mutex_unlock(&mutex_);
}

void device_forget(struct device *d, const void *owner) {
  pthread_mutex_lock(&mutex_);
  for (int i = 0; i < d->cached_count; i++)
    if (d->cached[i] == owner) d->cached[i--] = d->cached[--d->cached_count];
  pthread_mutex_unlock(&mutex_);
}

/* Bytes that must move before this run, by the rule of the driver (accelerators.md 2.5). */
static uint64_t bytes_to_move(struct device *d, const void *owner, const struct package *p) {
  uint64_t moved = p->streamed_bytes;
  if (p->token == 0 || p->token != d->token) {
    d->cached_count = 0;
    d->token = 0;
  }
  if (p->caches) {
    int known = 0;
    for (int i = 0; i < d->cached_count; i++) known |= d->cached[i] == owner;
    if (!known && d->cached_count < CACHE_ENTRIES) {
      moved += p->cached_bytes;
      d->cached[d->cached_count++] = owner;
      d->token = p->token;
    }
  }
  return moved;
}

/* Each trip point passed raises the clock divider one step; the temperature also shows in a sysfs-like directory. */
static double thermal_factor(const struct device *d) {
  static const double trips[] = {85000, 90000, 95000};
  double factor = 1, milli = control_number("heat", 0);
  const char *root = control_env("SYSFS", NULL);
  for (int i = 0; i < 3; i++)
    if (milli >= trips[i]) factor *= 2;
  const char *name = strrchr(d->id.path, '/');
  if (root && name && d->id.type == EDGETPU_APEX_PCI) {
    char path[CONTROL_TEXT * 2];
    snprintf(path, sizeof path, "%s/class/apex%s/temp", root, name);
    FILE *file = fopen(path, "we");
    if (file) {
      fprintf(file, "%.0f\n", milli ? milli : 41000);
      fclose(file);
    }
  }
  return factor;
}

int device_run(struct device *d, const void *owner, const struct package *p, const char *model) {
  char compute[CONTROL_TEXT];
  double ms = COMPUTE_MS;
  pthread_mutex_lock(&mutex_); /* one inference at a time, whoever asks */
  uint64_t moved = bytes_to_move(d, owner, p);
  if (control_get("compute", compute)) ms = atof(compute);
  double bandwidth = control_number("bandwidth", BANDWIDTH_MIB);
  ms = ms * d->slow * thermal_factor(d) + 1000.0 * (double)moved / 1048576.0 / bandwidth;
  ms *= control_number("slow", 1);
  int lost = control_wait(ms, gone, d);
  control_log("invoke %s input=%s token=%016llx moved=%llu streamed=%u ms=%.2f lost=%d", d->id.path, model,
              (unsigned long long)p->token, (unsigned long long)moved, p->streamed_bytes, ms, lost);
  pthread_mutex_unlock(&mutex_);
  if (!lost) return 0;
  char mode[CONTROL_TEXT], firmware[CONTROL_TEXT];
  if (state_of(d->id.path, "firmware", firmware)) unlink(firmware); /* it comes back under its first id */
  if (control_get("vanish-mode", mode) && strcmp(mode, "error") == 0) return 1;
  if (strcmp(mode, "hang") == 0)
    for (;;) pause();
  fprintf(stderr, "stand-in: Bulk-in failed. Abort\n"); /* what the driver does */
  abort();
}
