#include "ring.h"

size_t ring_write(struct ring *ring, const unsigned char *from, size_t length)
{
    size_t written = 0;
    while (written < length && ring->used < RING_CAPACITY) {
        ring->bytes[(ring->head + ring->used) % RING_CAPACITY] = from[written++];
        ring->used++;
    }
    return written;
}

size_t ring_read(struct ring *ring, unsigned char *to, size_t length)
{
    size_t taken = 0;
    while (taken < length && ring->used > 0) {
        to[taken++] = ring->bytes[ring->head];
        ring->head = (ring->head + 1) % RING_CAPACITY;
        ring->used--;
    }
    return taken;
}
