#include "utf8.h"
#include <stdio.h>
#include <stdlib.h>

static void check(const char *string, long expected, const char *what)
{
    long got = utf8_length(string);
    if (got != expected) {
        printf("failed: %s: %ld instead of %ld\n", what, got, expected);
        exit(1);
    }
}

int main(void)
{
    check("", 0, "nothing");
    check("abc", 3, "ASCII");
    check("\xc3\xa4", 1, "two bytes");
    check("\xe2\x82\xac!", 2, "three bytes");
    check("\xf0\x9f\x98\x80", 1, "four bytes");
    check("\xf4\x8f\xbf\xbf", 1, "the last code point");
    check("\xf4\x90\x80\x80", -1, "above the last code point");
    check("\xc0\x80", -1, "overlong two bytes");
    check("\xe0\x80\x80", -1, "overlong three bytes");
    check("\xf0\x80\x80\x80", -1, "overlong four bytes");
    check("\xed\xa0\x80", -1, "a surrogate");
    check("\x80", -1, "a lone continuation");
    check("\xe2\x82", -1, "cut short");
    check("\xff", -1, "no lead byte");
    check("a\xc3(", -1, "a bad continuation");
    puts("ok");
    return 0;
}
