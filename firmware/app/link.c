#include "link.h"

#include "ec_board.h"

#define EC_CRC_START 0xFFFFFFFFu
#define EC_CRC_DIGITS 8u
#define EC_CRC_FIELD (EC_CRC_DIGITS + 2u) /* " *" and the digits */

static uint32_t sent; /* CRC of the line that is being sent, before the last inversion */

/* The received line without its CRC, ended by '\0', and what is still to be taken. */
static char line[EC_LINK_LINE];
static char *rest;

/* CRC-32 of IEEE 802.3, bit by bit: slower than a table, and 1 KB smaller. */
static uint32_t crc_add(uint32_t crc, uint8_t byte) {
    crc ^= byte;
    for (uint32_t bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    return crc;
}

static void put(char c) {
    sent = crc_add(sent, (uint8_t)c);
    ec_board_write((uint8_t)c);
}

static void put_all(const char *text) {
    while (*text != '\0') put(*text++);
}

static void put_digit(uint32_t digit) {
    put((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
}

static void put_byte(uint8_t byte) {
    put_digit(byte >> 4);
    put_digit(byte & 15u);
}

void ec_link_begin(const char *word) {
    sent = EC_CRC_START;
    put('@');
    put_all(word);
}

void ec_link_text(const char *key, const char *value) {
    put_all(key);
    for (; *value != '\0'; value++) {
        const uint8_t byte = (uint8_t)*value;
        if (byte > ' ' && byte <= '~' && byte != '%') {
            put(*value);
        } else {
            put('%');
            put_byte(byte);
        }
    }
}

void ec_link_number(const char *key, uint32_t value) {
    char digits[10];
    uint32_t count = 0;
    put_all(key);
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0) put(digits[--count]);
}

void ec_link_bytes(const char *key, const uint8_t *bytes, uint32_t count) {
    put_all(key);
    for (uint32_t i = 0; i < count; i++) put_byte(bytes[i]);
}

void ec_link_end(void) {
    const uint32_t crc = ~sent;
    put_all(" *");
    for (uint32_t shift = 32; shift > 0; shift -= 4) put_digit((crc >> (shift - 4)) & 15u);
    put('\n');
}

/* The value of a lower-case hex digit, 16 for any other character. */
static uint32_t digit_value(char c) {
    if (c >= '0' && c <= '9') return (uint32_t)(c - '0');
    if (c >= 'a' && c <= 'f') return (uint32_t)(c - 'a') + 10;
    return 16;
}

/* Whether `length` characters of the line end with the CRC of those before it; cuts it off. */
static bool cut_crc(uint32_t length) {
    if (length < EC_CRC_FIELD) return false;
    const uint32_t text = length - EC_CRC_FIELD;
    uint32_t crc = EC_CRC_START, claimed = 0, bad = 0;
    for (uint32_t i = 0; i < text; i++) crc = crc_add(crc, (uint8_t)line[i]);
    for (uint32_t i = length - EC_CRC_DIGITS; i < length; i++) {
        bad |= digit_value(line[i]) & 16u;
        claimed = claimed << 4 | (digit_value(line[i]) & 15u);
    }
    if (bad != 0 || line[text] != ' ' || line[text + 1] != '*' || claimed != ~crc) return false;
    line[text] = '\0';
    return true;
}

ec_link_status_t ec_link_receive(void) {
    for (;;) {
        uint32_t length = 0;
        int byte;
        while ((byte = ec_board_read()) != '\n') {
            if (byte == EC_BOARD_EOF) return EC_LINK_EOF;
            if (length < EC_LINK_LINE) line[length] = (char)byte;
            if (length <= EC_LINK_LINE) length++;
        }
        if (length == 0 || line[0] != '@') continue;
        if (length > EC_LINK_LINE) return EC_LINK_LONG;
        if (line[length - 1] == '\r') length--;
        rest = line;
        return cut_crc(length) ? EC_LINK_OK : EC_LINK_CRC;
    }
}

bool ec_link_take(const char *text) {
    char *place = rest;
    while (*text != '\0') {
        if (*place++ != *text++) return false;
    }
    rest = place;
    return true;
}

bool ec_link_take_number(uint32_t *value) {
    uint32_t digit = digit_value(*rest);
    if (digit > 9) return false;
    *value = 0;
    for (; digit <= 9; digit = digit_value(*++rest)) {
        if (*value > (UINT32_MAX - digit) / 10) return false;
        *value = *value * 10 + digit;
    }
    return true;
}

uint32_t ec_link_take_bytes(const uint8_t **bytes) {
    uint8_t *to = (uint8_t *)rest; /* the decoded bytes take the place of their digits */
    uint32_t count = 0;
    *bytes = to;
    for (; *rest != '\0'; rest += 2) {
        const uint32_t high = digit_value(rest[0]);
        const uint32_t low = high < 16 ? digit_value(rest[1]) : 16;
        if (low == 16 || count == EC_LINK_DATA) return 0;
        to[count++] = (uint8_t)(high << 4 | low);
    }
    return count;
}

bool ec_link_at_end(void) {
    return *rest == '\0';
}
