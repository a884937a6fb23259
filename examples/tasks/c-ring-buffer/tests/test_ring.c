#include "ring.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int condition, const char *what)
{
    if (!condition) {
        printf("failed: %s\n", what);
        exit(1);
    }
}

int main(void)
{
    struct ring ring = {0};
    unsigned char out[16];
    check(ring_write(&ring, (const unsigned char *)"abcdefgh", 8) == 8, "a full buffer holds its capacity");
    check(ring_write(&ring, (const unsigned char *)"x", 1) == 0, "a full buffer takes nothing");
    check(ring_read(&ring, out, 8) == 8 && memcmp(out, "abcdefgh", 8) == 0, "it gives back what it took");
    unsigned char next_in = 0, next_out = 0;
    for (int round = 0; round < 1000; round++) {
        unsigned char in[5];
        size_t n = (size_t)(round % 5) + 1;
        for (size_t i = 0; i < n; i++)
            in[i] = (unsigned char)(next_in + i);
        next_in = (unsigned char)(next_in + ring_write(&ring, in, n));
        size_t got = ring_read(&ring, out, (size_t)(round % 3) + 1);
        for (size_t i = 0; i < got; i++)
            check(out[i] == next_out++, "bytes come in order");
    }
    puts("ok");
    return 0;
}
