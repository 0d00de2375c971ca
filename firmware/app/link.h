/* Lines to and from the host: `@word key=value ... *crc32`. docs/protocol.md has the whole of it. */
#ifndef EC_LINK_H_
#define EC_LINK_H_

#include <stdbool.h>
#include <stdint.h>

#define EC_LINK_DATA 64u  /* bytes of data on a line, at most */
#define EC_LINK_LINE 192u /* characters of a received line without its newline, at most */

typedef enum {
    EC_LINK_OK = 0,
    EC_LINK_LONG = 1, /* the line was longer than EC_LINK_LINE */
    EC_LINK_CRC = 2,  /* the CRC is missing or wrong */
    EC_LINK_EOF = 3   /* the host is gone */
} ec_link_status_t;

/* Sending: a line is ec_link_begin, then fields, then ec_link_end. A key is all that stands before
 * the value: " ticks=". */
void ec_link_begin(const char *word);
void ec_link_text(const char *key, const char *value);
void ec_link_number(const char *key, uint32_t value);
void ec_link_bytes(const char *key, const uint8_t *bytes, uint32_t count);
void ec_link_end(void);

/* Waits for the next line that starts with '@'; its text without the CRC can then be taken. */
ec_link_status_t ec_link_receive(void);

/* Taking the received line apart, from its start: false where something else stands there, and
 * after a refused text the place is the same as before. */
bool ec_link_take(const char *text);
bool ec_link_take_number(uint32_t *value);

/* Hex digits to the end of the line: 1 to EC_LINK_DATA bytes, and how many, or 0. They are
 * decoded in place: the pointer holds until the next ec_link_receive. */
uint32_t ec_link_take_bytes(const uint8_t **bytes);

/* Whether the whole line is taken. */
bool ec_link_at_end(void);

#endif
