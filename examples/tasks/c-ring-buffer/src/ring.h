#ifndef RING_H
#define RING_H
#include <stddef.h>

#define RING_CAPACITY 8

struct ring {
    unsigned char bytes[RING_CAPACITY];
    size_t head; /* next byte to read */
    size_t used; /* bytes stored */
};

/* Stores up to `length` bytes; returns how many fitted. */
size_t ring_write(struct ring *ring, const unsigned char *from, size_t length);
/* Takes up to `length` bytes; returns how many there were. */
size_t ring_read(struct ring *ring, unsigned char *to, size_t length);
#endif
