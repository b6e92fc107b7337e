#include <stdio.h>
#include <string.h>

int probe_copy(const char *text);

int main(int argc, char **argv)
{
    char copy[16];

    strcpy(copy, argv[argc - 1]);
    printf("%s %d\n", copy, probe_copy(copy));
    return 0;
}
