/* The fast socket of edgeaid (docs/fast-socket.md) for C and C++ programs: this header alone, C99 or C++11, Linux.
 *
 *   struct edgeai ai;
 *   struct edgeai_tensor in = {"image", 1024, 0}, out = {"scores", 10, 0};
 *   if (edgeai_open(&ai, NULL) || edgeai_bind(&ai, "digits", &in, 1, &out, 1)) puts(ai.error);
 *   memcpy(in.data, pixels, in.size);
 *   if (edgeai_infer(&ai, 0) == 0) use(out.data);
 *   edgeai_close(&ai);
 *
 * Names and sizes of a model's tensors: curl --unix-socket /run/edgeai/edgeaid.sock http://localhost/v2/models/digits
 * One connection serves one model here; open another one for the next. Not for several threads at once.
 * Every function returns 0, or -1 with a sentence in `error`.
 */
#ifndef EDGEAI_FAST_H
#define EDGEAI_FAST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EDGEAI_SOCKET "/run/edgeai/fast.sock"
#define EDGEAI_ALIGN 64

/* A tensor: its name and bytes as the model has them; `data` is set by edgeai_bind and lies in shared memory. */
struct edgeai_tensor {
    const char *name;
    size_t size;
    void *data;
};

struct edgeai {
    int fd;
    uint32_t binding;
    uint64_t request;
    void *memory;
    size_t memory_size;
    /* Nanoseconds of the last answer: waiting, input, compute, output. */
    uint64_t ns[4];
    /* Id of the device that answered last. */
    char device[64];
    char error[512];
};

/* The messages of docs/fast-socket.md; every field is little-endian, as all of edgeaid's machines are. */
struct edgeai_request_message {
    uint8_t kind, priority;
    uint16_t zero;
    uint32_t binding;
    uint64_t number, timeout_us, reserved;
};
struct edgeai_result_message {
    uint8_t kind, zero;
    uint16_t status;
    uint32_t binding;
    uint64_t number, ns[4];
};

static inline int edgeai_fail(struct edgeai *ai, const char *what) {
    snprintf(ai->error, sizeof ai->error, "%s: %s", what, strerror(errno));
    return -1;
}

/* Send a control message, with a descriptor unless it is -1; `reply` gets the answer as text. */
static inline int edgeai_control(struct edgeai *ai, const char *json, int fd, char *reply, size_t size) {
    struct iovec part = {(void *)json, strlen(json)};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    if (sendmsg(ai->fd, &message, MSG_NOSIGNAL) < 0)
        return edgeai_fail(ai, "edgeaid closed the connection");
    ssize_t got = recv(ai->fd, reply, size - 1, 0);
    if (got <= 0)
        return edgeai_fail(ai, "edgeaid did not answer");
    reply[got] = 0;
    if (strstr(reply, "\"error\":")) {
        snprintf(ai->error, sizeof ai->error, "%.500s", reply);
        return -1;
    }
    return 0;
}

/* The number behind "key": in an answer; 0 without it. */
static inline uint32_t edgeai_number(const char *reply, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *place = strstr(reply, quoted);
    return place ? (uint32_t)strtoul(place + strlen(quoted), NULL, 10) : 0;
}

/* Connect. `path` NULL: EDGEAI_SOCKET. Answers are waited for 60 s. */
static inline int edgeai_open(struct edgeai *ai, const char *path) {
    struct sockaddr_un address;
    struct timeval limit = {60, 0};
    char reply[4096];
    memset(ai, 0, sizeof *ai);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    ai->memory = MAP_FAILED;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path ? path : EDGEAI_SOCKET);
    ai->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (ai->fd < 0)
        return edgeai_fail(ai, "socket");
    setsockopt(ai->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(ai->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return edgeai_fail(ai, address.sun_path);
    return edgeai_control(ai, "{\"op\":\"hello\",\"version\":1}", -1, reply, sizeof reply);
}

/* Append the places of tensors to a message; returns the new length. */
static inline size_t edgeai_places(char *text, size_t size, size_t used, const char *side, uint32_t region,
                            struct edgeai_tensor *tensors, int count, size_t *offset) {
    used += (size_t)snprintf(text + used, size - used, ",\"%s\":[", side);
    for (int i = 0; i < count && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s{\"name\":\"%s\",\"region\":%u,\"offset\":%zu}",
                                 i ? "," : "", tensors[i].name, region, *offset);
        *offset += (tensors[i].size + EDGEAI_ALIGN - 1) / EDGEAI_ALIGN * EDGEAI_ALIGN;
    }
    if (used < size)
        used += (size_t)snprintf(text + used, size - used, "]");
    return used;
}

/* Bind a model: shared memory for its tensors, whose `data` is set. Every input is needed; outputs may be left out. */
static inline int edgeai_bind(struct edgeai *ai, const char *model, struct edgeai_tensor *inputs, int input_count,
                       struct edgeai_tensor *outputs, int output_count) {
    char text[16384], reply[65536];
    size_t total = 0, offset = 0;
    for (int i = 0; i < input_count + output_count; i++) {
        struct edgeai_tensor *tensor = i < input_count ? &inputs[i] : &outputs[i - input_count];
        total += (tensor->size + EDGEAI_ALIGN - 1) / EDGEAI_ALIGN * EDGEAI_ALIGN;
    }
    int fd = memfd_create("edgeai", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)total) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        if (fd >= 0)
            close(fd);
        return edgeai_fail(ai, "shared memory");
    }
    ai->memory = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ai->memory_size = total;
    int failed = ai->memory == MAP_FAILED ? edgeai_fail(ai, "mmap")
                                          : edgeai_control(ai, "{\"op\":\"attach\"}", fd, reply, sizeof reply);
    close(fd);
    if (failed)
        return -1;
    uint32_t region = edgeai_number(reply, "region");
    size_t used = (size_t)snprintf(text, sizeof text, "{\"op\":\"bind\",\"model\":\"%s\"", model);
    used = edgeai_places(text, sizeof text, used, "inputs", region, inputs, input_count, &offset);
    if (used < sizeof text)
        used = edgeai_places(text, sizeof text, used, "outputs", region, outputs, output_count, &offset);
    if (used + 2 > sizeof text) {
        snprintf(ai->error, sizeof ai->error, "the names are too long");
        return -1;
    }
    strcat(text, "}");
    if (edgeai_control(ai, text, -1, reply, sizeof reply))
        return -1;
    ai->binding = edgeai_number(reply, "binding");
    char *place = (char *)ai->memory;
    for (int i = 0; i < input_count + output_count; i++) {
        struct edgeai_tensor *tensor = i < input_count ? &inputs[i] : &outputs[i - input_count];
        tensor->data = place;
        place += (tensor->size + EDGEAI_ALIGN - 1) / EDGEAI_ALIGN * EDGEAI_ALIGN;
    }
    return 0;
}

/* Run the model on what lies in the inputs; the outputs hold the answer then. timeout_us 0: the daemon's default. */
static inline int edgeai_infer(struct edgeai *ai, uint64_t timeout_us) {
    struct edgeai_request_message request = {1, 0, 0, ai->binding, ++ai->request, timeout_us, 0};
    char reply[sizeof(struct edgeai_result_message) + 4096];
    struct edgeai_result_message result;
    if (send(ai->fd, &request, sizeof request, MSG_NOSIGNAL) < 0)
        return edgeai_fail(ai, "edgeaid closed the connection");
    ssize_t got = recv(ai->fd, reply, sizeof reply - 1, 0);
    if (got < (ssize_t)sizeof result)
        return edgeai_fail(ai, "edgeaid did not answer");
    reply[got] = 0;
    memcpy(&result, reply, sizeof result);
    const char *text = reply + sizeof result;
    if (result.status != 200) {
        snprintf(ai->error, sizeof ai->error, "%d: %.480s", result.status, text);
        return -1;
    }
    memcpy(ai->ns, result.ns, sizeof ai->ns);
    snprintf(ai->device, sizeof ai->device, "%.63s", text);
    return 0;
}

static inline void edgeai_close(struct edgeai *ai) {
    if (ai->memory != MAP_FAILED && ai->memory)
        munmap(ai->memory, ai->memory_size);
    if (ai->fd >= 0)
        close(ai->fd);
    ai->fd = -1;
    ai->memory = NULL;
}

#endif
