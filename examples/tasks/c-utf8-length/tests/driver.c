#include "utf8.h"
#include <stdio.h>

/* Strings come as hexadecimal, a line each. */
int main(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        char string[128] = {0};
        unsigned byte;
        for (size_t at = 0; sscanf(line + 2 * at, "%2x", &byte) == 1; at++)
            string[at] = (char)byte;
        printf("%ld\n", utf8_length(string));
    }
    return 0;
}
