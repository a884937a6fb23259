#include "utf8.h"

static int continuation(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

long utf8_length(const char *string)
{
    const unsigned char *at = (const unsigned char *)string;
    long count = 0;
    while (*at) {
        unsigned long point;
        int more;
        if (*at < 0x80) {
            point = *at;
            more = 0;
        } else if (*at >= 0xC2 && *at < 0xE0) {
            point = *at & 0x1F;
            more = 1;
        } else if (*at >= 0xE0 && *at < 0xF0) {
            point = *at & 0x0F;
            more = 2;
        } else if (*at >= 0xF0 && *at < 0xF5) {
            point = *at & 0x07;
            more = 3;
        } else {
            return -1;
        }
        for (int i = 1; i <= more; i++) {
            if (!continuation(at[i]))
                return -1;
            point = point << 6 | (at[i] & 0x3F);
        }
        if ((more == 2 && point < 0x800) || (more == 3 && point < 0x10000) || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
            return -1;
        at += more + 1;
        count++;
    }
    return count;
}
