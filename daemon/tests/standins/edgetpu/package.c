#include "package.h"

#include <string.h>

#define RUNTIME_VERSION 14 /* the last runtime published */

struct span {
  const uint8_t *data;
  size_t size;
};

/* Little-endian unsigned of `width` bytes; 0 outside the span. */
static uint64_t number(struct span s, size_t at, unsigned width) {
  uint64_t value = 0;
  if (width > 8 || at > s.size || s.size - at < width) return 0;
  for (unsigned i = 0; i < width; i++) value |= (uint64_t)s.data[at + i] << (8 * i);
  return value;
}

/* FlexBuffer: the string under `key` of the root map. */
static struct span flex_string(struct span s, const char *key) {
  struct span none = {NULL, 0};
  if (s.size < 3) return none;
  unsigned root_width = s.data[s.size - 1], root_type = s.data[s.size - 2];
  if (root_type >> 2 != 9 || root_width > 8 || s.size < 2 + root_width) return none; /* 9 = map */
  size_t root = s.size - 2 - root_width, back = number(s, root, root_width);
  unsigned width = 1u << (root_type & 3);
  if (back > root || root - back < 3 * width) return none;
  size_t map = root - back;
  uint64_t count = number(s, map - width, width);
  size_t keys_at = map - 3 * width, keys_back = number(s, keys_at, width);
  unsigned key_width = (unsigned)number(s, map - 2 * width, width);
  if (keys_back > keys_at || key_width > 8 || count > 64) return none;
  size_t keys = keys_at - keys_back;
  for (uint64_t i = 0; i < count; i++) {
    size_t slot = keys + i * key_width, to_key = number(s, slot, key_width);
    if (to_key > slot) return none;
    size_t at = slot - to_key, n = strlen(key) + 1;
    if (at > s.size || s.size - at < n || memcmp(s.data + at, key, n) != 0) continue;
    size_t types = map + count * width;
    if (types + i >= s.size || s.data[types + i] >> 2 != 5) return none; /* 5 = string */
    unsigned child = 1u << (s.data[types + i] & 3);
    size_t value = map + i * width, to_string = number(s, value, width);
    if (to_string > value || value - to_string < child) return none;
    size_t start = value - to_string, size = number(s, start - child, child);
    if (size > s.size - start) return none;
    return (struct span){s.data + start, size};
  }
  return none;
}

/* Flatbuffer: position of field `slot` in the table at `table`, 0 = absent. */
static size_t field(struct span s, size_t table, unsigned slot) {
  size_t vtable = table - (size_t)(int64_t)(int32_t)number(s, table, 4);
  if (table == 0 || vtable >= s.size) return 0;
  size_t entry = 4 + 2 * (size_t)slot;
  if (entry + 2 > number(s, vtable, 2)) return 0;
  size_t offset = number(s, vtable + entry, 2);
  return offset && table + offset < s.size ? table + offset : 0;
}

static size_t follow(struct span s, size_t at) {
  size_t to = at ? at + number(s, at, 4) : 0;
  return to < s.size ? to : 0;
}

/* Bytes of a [ubyte] or string field. */
static struct span bytes(struct span s, size_t table, unsigned slot) {
  struct span none = {NULL, 0};
  size_t vector = follow(s, field(s, table, slot));
  if (!vector) return none;
  size_t size = number(s, vector, 4);
  if (size > s.size || vector + 4 > s.size - size) return none;
  return (struct span){s.data + vector + 4, size};
}

static size_t root(struct span s) { return s.size >= 8 && number(s, 0, 4) < s.size ? number(s, 0, 4) : 0; }

static int layers(struct span s, size_t executable, unsigned slot, uint32_t sizes[PACKAGE_LAYERS]) {
  size_t vector = follow(s, field(s, executable, slot));
  int count = vector ? (int)number(s, vector, 4) : 0;
  if (count > PACKAGE_LAYERS) return -1;
  for (int i = 0; i < count; i++) {
    size_t layer = follow(s, vector + 4 + 4 * (size_t)i), size = field(s, layer, 1);
    sizes[i] = size ? (uint32_t)number(s, size, 4) : 0;
  }
  return count;
}

const char *package_parse(const uint8_t *options, size_t length, struct package *out) {
  memset(out, 0, sizeof *out);
  struct span flex = {options, length};
  if (!options || !length) return "the operator has no options";
  struct span package = flex_string(flex, "4");
  size_t table = package.size ? root(package) : 0;
  if (!table || memcmp(package.data + 4, "DWN1", 4) != 0) return "the options contain no package";
  size_t at = field(package, table, 0);
  if (at && (int32_t)number(package, at, 4) > RUNTIME_VERSION) return "package requires a newer runtime version";
  at = field(package, table, 5);
  if (at && (int32_t)number(package, at, 4) == -1) return "multi-chip package";
  struct span multi = bytes(package, table, 1);
  size_t list = multi.size ? follow(multi, field(multi, root(multi), 0)) : 0;
  unsigned count = list ? (unsigned)number(multi, list, 4) : 0, seen = 0;
  if (count < 1 || count > 3) return "the package has no executable, or too many";
  for (unsigned i = 0; i < count; i++) {
    size_t item = follow(multi, list + 4 + 4 * (size_t)i);
    size_t size = item ? number(multi, item, 4) : 0;
    if (!size || size > multi.size || item + 4 > multi.size - size) return "an executable is cut off";
    struct span executable = {multi.data + item + 4, size};
    size_t e = root(executable);
    size_t type_at = field(executable, e, 13), token_at = field(executable, e, 14);
    unsigned type = type_at ? (unsigned)number(executable, type_at, 2) : 0;
    if (type > 2 || seen & 1u << type) return "the package repeats an executable type";
    seen |= 1u << type;
    uint32_t parameters = (uint32_t)bytes(executable, e, 6).size;
    if (type == 1 && count == 2) {
      out->caches = 1;
      out->cached_bytes = parameters;
    } else if (type != 1 && (count < 3 || type == 0)) { /* of three, the stand-alone one runs */
      out->streamed_bytes = parameters;
      out->token = token_at ? number(executable, token_at, 8) : 0;
      out->inputs = layers(executable, e, 8, out->input_bytes);
      out->outputs = layers(executable, e, 9, out->output_bytes);
    }
  }
  if (out->inputs < 1 || out->outputs < 1) return "the package has no runnable executable";
  if (count == 2 && seen != 6) return "two executables must be caching and execution-only";
  return NULL;
}
