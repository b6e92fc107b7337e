/* How a test commands a stand-in: a small text file, read again at every step, and a log that the test reads back.
 *
 * Control file: one command per line, `name arguments`; blank lines and lines that start with # mean nothing.
 * A line `once name arguments` is removed from the file at the moment it is obeyed.
 * Paths and factors come from the environment, under the prefix a stand-in passes to control_init:
 *   <PREFIX>_CONTROL  the control file           <PREFIX>_LOG    file that gets one line per event
 *   <PREFIX>_STATE    directory for locks and state (default: the control file's directory)
 *   <PREFIX>_TIME     factor on every simulated duration, default 1; 0 = no waiting
 */
#ifndef EDGEAI_STANDIN_CONTROL_H
#define EDGEAI_STANDIN_CONTROL_H

#include <stddef.h>

#define CONTROL_TEXT 1024

void control_init(const char *prefix);
/* Value of environment variable <PREFIX>_<name>, or fallback. */
const char *control_env(const char *name, const char *fallback);
/* 1 when a line `name ...` (or `once name ...`, which is then consumed) is there; its arguments go to text. */
int control_get(const char *name, char text[CONTROL_TEXT]);
/* First argument of `name` as a number, or fallback. */
double control_number(const char *name, double fallback);
/* Path of `name` in the state directory; 0 when there is none. */
int control_state(const char *name, char path[CONTROL_TEXT]);
/* One line into the log, with a newline added. */
void control_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Wait `ms` simulated milliseconds, obeying `hang` and `abort` at once. Calls `gone` (may be NULL) every few ms and
 * stops with 1 when that returns non-zero. */
int control_wait(double ms, int (*gone)(void *), void *argument);
/* Factor on durations: control line `time`, else the environment, else 1. */
double control_time(void);

#endif
