#include "ring.h"
#include <stdio.h>
#include <string.h>

/* "w TEXT" writes, "r N" reads: each prints what came of it. */
int main(void)
{
    struct ring ring = {0};
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == 'w') {
            printf("%zu\n", ring_write(&ring, (const unsigned char *)line + 2, strlen(line + 2)));
        } else {
            unsigned char out[33] = {0};
            ring_read(&ring, out, (size_t)(line[2] - '0'));
            printf("%s\n", out);
        }
    }
    return 0;
}
