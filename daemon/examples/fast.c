/* Classify a raw 32 x 32 grey picture with the model `digits` over the fast socket.
 *
 *   cc -std=c99 -O2 -o fast fast.c && ./fast picture.raw [socket]
 */
#include "edgeai_fast.h"

int main(int argc, char **argv) {
    struct edgeai ai;
    struct edgeai_tensor image = {"image", 32 * 32, NULL}, scores = {"scores", 10, NULL};
    unsigned char pixels[32 * 32];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file || fread(pixels, 1, sizeof pixels, file) != sizeof pixels) {
        fprintf(stderr, "usage: fast PICTURE [SOCKET]; PICTURE: 1024 grey pixels, one byte each\n");
        return 64;
    }
    fclose(file);
    if (edgeai_open(&ai, argc > 2 ? argv[2] : NULL) || edgeai_bind(&ai, "digits", &image, 1, &scores, 1)) {
        fprintf(stderr, "%s\n", ai.error);
        return 75;
    }
    for (size_t i = 0; i < sizeof pixels; i++)
        ((signed char *)image.data)[i] = (signed char)(pixels[i] - 128); /* the model takes signed bytes */
    if (edgeai_infer(&ai, 0)) {
        fprintf(stderr, "%s\n", ai.error);
        return 75;
    }
    int best = 0;
    for (int i = 1; i < 10; i++)
        if (((signed char *)scores.data)[i] > ((signed char *)scores.data)[best])
            best = i;
    printf("%d on %s in %.0f us\n", best, ai.device, ai.ns[2] / 1e3);
    edgeai_close(&ai);
    return 0;
}
