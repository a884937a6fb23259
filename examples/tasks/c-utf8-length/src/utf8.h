#ifndef UTF8_H
#define UTF8_H
/* Number of code points, or -1 if the string is not well-formed UTF-8. */
long utf8_length(const char *string);
#endif
