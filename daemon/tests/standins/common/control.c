#define _GNU_SOURCE
#include "control.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static char prefix_[64] = "STANDIN";

void control_init(const char *prefix) { snprintf(prefix_, sizeof prefix_, "%s", prefix); }

const char *control_env(const char *name, const char *fallback) {
  char key[128];
  snprintf(key, sizeof key, "%s_%s", prefix_, name);
  const char *value = getenv(key);
  return value && *value ? value : fallback;
}

/* Rewrite the file without the line that starts at `line`; the caller holds the lock. */
static void drop_line(int fd, char *content, char *line) {
  char *end = strchr(line, '\n');
  if (end)
    memmove(line, end + 1, strlen(end + 1) + 1);
  else
    *line = 0;
  size_t length = strlen(content);
  if (pwrite(fd, content, length, 0) != (ssize_t)length || ftruncate(fd, (off_t)length) != 0)
    fprintf(stderr, "stand-in: cannot rewrite the control file\n");
}

int control_get(const char *name, char text[CONTROL_TEXT]) {
  const char *path = control_env("CONTROL", NULL);
  int found = 0;
  text[0] = 0;
  if (!path) return 0;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  flock(fd, LOCK_EX); /* two processes must not both obey one `once` */
  char content[8192];
  ssize_t length = pread(fd, content, sizeof content - 1, 0);
  content[length > 0 ? length : 0] = 0;
  for (char *line = content; line && *line && !found; line = (line = strchr(line, '\n')) ? line + 1 : NULL) {
    char *word = line;
    int once = strncmp(word, "once ", 5) == 0;
    if (once) word += 5;
    size_t n = strlen(name);
    if (strncmp(word, name, n) != 0 || !strchr(" \n\r", word[n])) continue; /* strchr finds the final 0 as well */
    word += n;
    word += strspn(word, " ");
    snprintf(text, CONTROL_TEXT, "%.*s", (int)strcspn(word, "\r\n"), word);
    found = 1;
    if (once) {
      drop_line(fd, content, line);
      break;
    }
  }
  close(fd);
  return found;
}

double control_number(const char *name, double fallback) {
  char text[CONTROL_TEXT];
  return control_get(name, text) ? atof(text) : fallback;
}

int control_state(const char *name, char path[CONTROL_TEXT]) {
  const char *directory = control_env("STATE", NULL);
  if (directory) {
    snprintf(path, CONTROL_TEXT, "%s/%s", directory, name);
    return 1;
  }
  const char *control = control_env("CONTROL", NULL);
  if (!control) return 0;
  const char *slash = strrchr(control, '/');
  snprintf(path, CONTROL_TEXT, "%.*s%s", slash ? (int)(slash - control + 1) : 0, control, name);
  return 1;
}

void control_log(const char *format, ...) {
  const char *path = control_env("LOG", NULL);
  if (!path) return;
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return;
  if (write(fd, line, (size_t)length) != length) fprintf(stderr, "stand-in: cannot write the log\n");
  close(fd);
}

double control_time(void) { return control_number("time", atof(control_env("TIME", "1"))); }

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int control_wait(double ms, int (*gone)(void *), void *argument) {
  char text[CONTROL_TEXT];
  double end = now_ms() + ms * control_time();
  for (;;) {
    if (control_get("abort", text)) {
      control_log("abort");
      fprintf(stderr, "stand-in: aborting on command\n");
      abort();
    }
    if (control_get("hang", text)) {
      control_log("hang");
      for (;;) pause();
    }
    if (gone && gone(argument)) return 1;
    double left = end - now_ms();
    if (left <= 0) return 0;
    if (left > 5) left = 5;
    struct timespec t = {0, (long)(left * 1e6)};
    nanosleep(&t, NULL);
  }
}
