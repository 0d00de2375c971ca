/* The board's words and numbers: what its board.toml says, through the build. */
#include "ec_board.h"

#define EC_QUOTE(text) EC_QUOTED(text)
#define EC_QUOTED(text) #text

const ec_board_t ec_board = {
    .id = EC_BOARD_ID,
    .unit = EC_BOARD_UNIT,
    .scale = EC_QUOTE(EC_BOARD_SCALE),
    .hz = EC_BOARD_HZ,
};
