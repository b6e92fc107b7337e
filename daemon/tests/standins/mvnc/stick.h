/* What a Movidius stick does behind either API. Environment prefix MVNC_STANDIN_ (see ../common/control.h).
 *
 * Control lines: sticks <n> (default 1), vanish, compute <ms>, slow <factor>, heat <degrees>, write-error, stall,
 *   myriad-error <text>, memory <bytes>, hang, abort. */
#ifndef EDGEAI_STANDIN_STICK_H
#define EDGEAI_STANDIN_STICK_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define NAME_SIZE 28
#define THERMAL_FLOATS 25

/* 0 and the name of stick `index`, or -1 when there are fewer. */
int stick_name(int index, char name[NAME_SIZE]);
int stick_gone(void *name);
/* Lock file descriptor, -1 = another process has the stick, -2 = there is no directory to keep locks in. */
int stick_claim(const char *name);
/* 1 when the firmware lies beside this library: <directory of symbol's library>/mvnc/<file>. */
int stick_firmware(const void *symbol, const char *file);
/* Degrees Celsius (control line `heat`, else 41), and what the firmware makes of them: 0 normal, 1 above the lower
 * limit (85: waits 100 ms per layer group), 2 above the upper limit (95: waits 10 s). */
double stick_temperature(void);
int stick_throttle_level(double lower, double upper);
/* Simulated ms of one inference, back-off included. */
double stick_compute_ms(int level, double backoff_high, double backoff_critical);
/* The "network": output value i is input value (7 * i) mod n, bit by bit; so a test can tell which FP16 went where. */
void stick_run(const uint16_t *input, size_t n, uint16_t *output, size_t outputs);
/* Unsigned 32 bit at an offset of a graph file. */
uint32_t stick_u32(const void *graph, size_t at);

#endif
