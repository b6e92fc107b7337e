#define _GNU_SOURCE
#include "twin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/control.h"

/* Our host is Python with a TFLite runtime loaded; borrowing both gives the very numbers of the cpu backend and needs
 * no second runtime. The few functions are looked up so that nothing links against one Python version. */
static struct {
  int (*ensure)(void);
  void (*release)(int);
  int (*run)(const char *, void *);
} python_;

static const char program[] =
    "class _edgetpu_twins:\n"
    "    import ctypes, pathlib, sys\n"
    "    loaded, serial = {}, 0\n"
    "    @classmethod\n"
    "    def find(cls, directory, ins, outs):\n"
    "        module = next((cls.sys.modules[m] for m in ('ai_edge_litert.interpreter', 'tflite_runtime.interpreter')\n"
    "                       if m in cls.sys.modules), None)\n"
    "        if module is None: return 0\n"
    "        for path in sorted(cls.pathlib.Path(directory).glob('*.tflite')):\n"
    "            if path.stem.endswith('_edgetpu'): continue\n"
    "            i = module.Interpreter(model_path=str(path), num_threads=1)\n"
    "            a, b = i.get_input_details(), i.get_output_details()\n"
    "            got = [[(d['name'], [int(n) for n in d['shape']]) for d in side] for side in (a, b)]\n"
    "            if [sorted(got[0]), sorted(got[1])] == [sorted(ins), sorted(outs)]:\n"
    "                i.allocate_tensors()\n"
    "                cls.serial += 1\n"
    "                index = {d['name']: d for d in a + b}\n"
    "                cls.loaded[cls.serial] = (i, [index[n] for n, _ in ins], [index[n] for n, _ in outs])\n"
    "                return cls.serial\n"
    "        return 0\n"
    "    @classmethod\n"
    "    def run(cls, serial, ins, outs):\n"
    "        i, a, b = cls.loaded[serial]\n"
    "        import numpy\n"
    "        def view(address, size, d):\n"
    "            raw = (cls.ctypes.c_ubyte * size).from_address(address)\n"
    "            return numpy.frombuffer(raw, dtype=d['dtype']).reshape(d['shape'])\n"
    "        for d, (address, size) in zip(a, ins): i.set_tensor(d['index'], view(address, size, d))\n"
    "        i.invoke()\n"
    "        for d, (address, size) in zip(b, outs): view(address, size, d)[...] = i.get_tensor(d['index'])\n";

static int python_ready(void) {
  if (python_.run) return 1;
  int (*initialised)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  if (!initialised || !initialised()) return 0;
  python_.ensure = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
  python_.release = (void (*)(int))dlsym(RTLD_DEFAULT, "PyGILState_Release");
  int (*run)(const char *, void *) = (int (*)(const char *, void *))dlsym(RTLD_DEFAULT, "PyRun_SimpleStringFlags");
  if (!python_.ensure || !python_.release || !run) return 0;
  int state = python_.ensure();
  int failed = run(program, NULL);
  python_.release(state);
  if (failed) return 0;
  python_.run = run;
  return 1;
}

/* "[('name', [1, 2]), ...]" or "[(address, bytes), ...]" */
static void describe(FILE *to, TfLiteContext *context, const TfLiteIntArray *tensors, int addresses) {
  fputc('[', to);
  for (int i = 0; i < tensors->size; i++) {
    TfLiteTensor *t = &context->tensors[tensors->data[i]];
    if (addresses) {
      fprintf(to, "(%llu,%zu),", (unsigned long long)(uintptr_t)t->data, t->bytes);
      continue;
    }
    fputs("('", to);
    for (const char *c = t->name; c && *c; c++)
      if (*c != '\'' && *c != '\\' && *c != '\n') fputc(*c, to);
    fputs("',[", to);
    for (int d = 0; d < t->dims->size; d++) fprintf(to, "%d,", t->dims->data[d]);
    fputs("]),", to);
  }
  fputc(']', to);
}

void *twin_find(TfLiteContext *context, const TfLiteNode *node) {
  const char *directory = control_env("TWINS", NULL);
  if (!directory || !python_ready()) return NULL;
  char *code = NULL;
  size_t size = 0;
  long *result = calloc(1, sizeof *result);
  FILE *to = open_memstream(&code, &size);
  fprintf(to, "_edgetpu_twins.ctypes.c_long.from_address(%llu).value = _edgetpu_twins.find('%s',",
          (unsigned long long)(uintptr_t)result, directory);
  describe(to, context, node->inputs, 0);
  fputc(',', to);
  describe(to, context, node->outputs, 0);
  fputs(")\n", to);
  fclose(to);
  int state = python_.ensure();
  int failed = python_.run(code, NULL);
  python_.release(state);
  free(code);
  if (failed || *result == 0) {
    free(result);
    return NULL;
  }
  return result;
}

int twin_run(void *twin, TfLiteContext *context, const TfLiteNode *node) {
  char *code = NULL;
  size_t size = 0;
  FILE *to = open_memstream(&code, &size);
  fprintf(to, "_edgetpu_twins.run(%ld,", *(long *)twin);
  describe(to, context, node->inputs, 1);
  fputc(',', to);
  describe(to, context, node->outputs, 1);
  fputs(")\n", to);
  fclose(to);
  int state = python_.ensure();
  int failed = python_.run(code, NULL);
  python_.release(state);
  free(code);
  return failed;
}

void twin_free(void *twin) {
  if (!twin) return;
  char code[128]; /* at interpreter exit the class may be gone already */
  snprintf(code, sizeof code, "'_edgetpu_twins' in globals() and _edgetpu_twins.loaded.pop(%ld, None)\n", *(long *)twin);
  int state = python_.ensure();
  python_.run(code, NULL);
  python_.release(state);
  free(twin);
}

void twin_fallback(TfLiteContext *context, const TfLiteNode *node) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (int i = 0; i < node->inputs->size; i++) {
    const TfLiteTensor *t = &context->tensors[node->inputs->data[i]];
    for (size_t b = 0; b < t->bytes; b++) hash = (hash ^ ((const uint8_t *)t->data)[b]) * 0x100000001b3u;
  }
  for (int k = 0; k < node->outputs->size; k++) {
    TfLiteTensor *t = &context->tensors[node->outputs->data[k]];
    uint64_t word = 0;
    for (size_t b = 0; b < t->bytes; b++) {
      if (b % 8 == 0) {
        word = hash + ((uint64_t)k << 32) + b / 8 + 0x9e3779b97f4a7c15u;
        word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
        word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
        word ^= word >> 31;
      }
      ((uint8_t *)t->data)[b] = (uint8_t)(word >> 8 * (b % 8));
    }
  }
}
