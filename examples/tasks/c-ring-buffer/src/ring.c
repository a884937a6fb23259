#include "ring.h"

size_t ring_write(struct ring *ring, const unsigned char *from, size_t length)
{
    size_t written = 0;
    while (written < length && ring->used < RING_CAPACITY - 1) {
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
        if (ring->head < RING_CAPACITY - 1)
            ring->head++;
        ring->used--;
    }
    return taken;
}
