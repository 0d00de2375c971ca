/* Rows of a window that go to its start. */
#ifndef EC_MOVE_H
#define EC_MOVE_H

#include <stdint.h>

typedef struct {
    int32_t from; /* where they stand, bytes from the start; more than 0 */
    int32_t bytes;
} ec_move_t;

/* The window begins at a word. Old and new place may overlap. */
void ec_move(const ec_move_t *p, void *window);

#endif
